package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"strings"

	"github.com/redis/rueidis"
)

// ErrUnavailable means that Redis was not asked: it is not connected, or has failed too often lately. It is returned at once.
var ErrUnavailable = errors.New("redis is unavailable")

// A class is what an error says about the server.
type class int

const (
	answer  class = iota // it answers, if only with an error for this command: wrong type, no memory, an unknown script
	failure              // it did not answer, or not in time: a few of these in a row mean that it is unavailable
	down                 // it says that it cannot serve now
	refused              // it rejects this client, or its writes: only another connection, or a person, can help
)

func classOf(err error) class {
	if err = bareError(err); err == nil || rueidis.IsRedisNil(err) {
		return answer
	}
	if errors.As(err, new(*refusal)) {
		return refused
	}
	if _, ok := rueidis.IsRedisErr(err); !ok {
		return failure
	}
	switch code(err) {
	case "LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY":
		return down
	case "READONLY", "NOAUTH", "WRONGPASS", "NOPERM", "MISCONF", "NOREPLICAS":
		return refused // the last two: it accepts no writes, removals included, until it can save or has its replicas
	}
	return answer
}

// needsSomebody reports whether a person has to fix the cause of err. A server that is read-only, or lacks its replicas, may
// recover by itself.
func needsSomebody(err error) bool {
	c := code(err)
	return classOf(err) == refused && c != "READONLY" && c != "NOREPLICAS" || isTLS(err)
}

// isTLS reports whether the server's certificate is not trusted, or the server refused the handshake, or speaks no TLS.
func isTLS(err error) bool {
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var handshake *errNoHandshake
	return errors.As(err, &cert) || errors.As(err, &record) || isAlert(err) || errors.As(err, &handshake) && !IsTimeout(err) && !isClosed(err)
}

// IsUnanswered reports whether err means that a server has not answered, or has said that it cannot serve now.
func IsUnanswered(err error) bool {
	c := classOf(err)
	return c == failure || c == down
}

// IsWrongType reports whether err means that the key holds no string.
func IsWrongType(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(e.Error(), "WRONGTYPE")
}

// IsForbidden reports whether err means that the user may not run the command, or not on this key.
func IsForbidden(err error) bool { return code(err) == "NOPERM" }

// denied reports whether the user may not use a key. The key is then another program's, with a name that begins as ours do.
func denied(err error) bool { return code(err) == "NOPERM" }

// IsTimeout reports whether err means that Redis did not answer in time.
func IsTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// isElsewhere reports whether a cluster node answers that it does not have the key, or not any more.
func isElsewhere(err error) bool {
	c := code(err)
	return c == "MOVED" || c == "ASK"
}

// isReplica reports whether a server says that it is no primary, or not any more. Such a server does not push changes that have
// not reached it, although the connection to it looks sound.
func isReplica(err error) bool {
	c := code(err)
	return c == "READONLY" || c == "MASTERDOWN"
}

func firstError(results []rueidis.RedisResult) error {
	for _, r := range results {
		if err := r.Error(); err != nil {
			return err
		}
	}
	return nil
}

// errorsOf returns the error of each result, or nil if none failed.
func errorsOf(results []rueidis.RedisResult) (errs []error) {
	for i, r := range results {
		if err := r.Error(); err != nil {
			if errs == nil {
				errs = make([]error, len(results))
			}
			errs[i] = err
		}
	}
	return errs
}

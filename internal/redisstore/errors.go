package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"strings"

	"github.com/redis/rueidis"
)

// ErrUnavailable means that Redis was not asked, because it is not connected or has failed too often of late. It comes
// at once.
var ErrUnavailable = errors.New("redis is unavailable")

// A class is what an error says of the server.
type class int

const (
	answer  class = iota // it answers, if only with a refusal of this command: wrong type, no memory, an unknown script
	failure              // it did not answer, or not in time: a few of these in a row mean that it is away
	down                 // it says itself that it cannot serve now
	refused              // it does not want this client, or not for writing: only another connection, or a person, can help
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
		return refused // the last two: it takes no writes, removals included, until it can save, or has its replicas
	}
	return answer
}

// needsSomebody reports whether a person has to mend what err tells of. A server that is read-only, or lacks its replicas, may
// cease to be so by itself.
func needsSomebody(err error) bool {
	c := code(err)
	return classOf(err) == refused && c != "READONLY" && c != "NOREPLICAS" || isTLS(err)
}

// isTLS reports whether the server showed a certificate that is not trusted, or refused the handshake, or speaks no TLS.
func isTLS(err error) bool {
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var handshake *errNoHandshake
	return errors.As(err, &cert) || errors.As(err, &record) || isAlert(err) || errors.As(err, &handshake) && !IsTimeout(err) && !isClosed(err)
}

// IsWrongType reports whether err means that the key holds something else than a string.
func IsWrongType(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(e.Error(), "WRONGTYPE")
}

// IsForbidden reports whether err means that the user may not run the command, or not on this key.
func IsForbidden(err error) bool { return code(err) == "NOPERM" }

// denied reports whether the user may not use a key: it is somebody else's then, whose keys begin as ours do.
func denied(err error) bool { return code(err) == "NOPERM" }

// IsTimeout reports whether err means that Redis did not answer in time.
func IsTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// isElsewhere reports whether the node of a cluster answers, and does not have the key, or not any more.
func isElsewhere(err error) bool {
	c := code(err)
	return c == "MOVED" || c == "ASK"
}

// isReplica reports whether a server says that it is no primary, or not any more. It tells of no change that it has not been told of,
// and the connection to it looks sound.
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

// errorsOf is the error of each result, or nil if none failed.
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

package redisstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"

	"github.com/redis/rueidis"
)

// A class is what an error says of the server.
type class int

const (
	answer  class = iota // it answers, if only with a refusal of this command: wrong type, no memory, an unknown script
	failure              // it did not answer, or not in time: a few of these in a row mean that it is away
	down                 // it says itself that it cannot serve now
	refused              // it does not want this client, or not for writing: only another connection, or a person, can help
)

func classOf(err error) class {
	if err == nil || rueidis.IsRedisNil(err) {
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

// isTLS reports whether the server showed a certificate that is not trusted, or speaks no TLS.
func isTLS(err error) bool {
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.As(err, &cert) || errors.As(err, &record)
}

// IsWrongType reports whether err means that the key holds something else than a string.
func IsWrongType(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(e.Error(), "WRONGTYPE")
}

// IsForbidden reports whether err means that the user may not run the command, or not on this key.
func IsForbidden(err error) bool { return code(err) == "NOPERM" }

// IsTimeout reports whether err means that Redis did not answer in time.
func IsTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// code is that of a server's own error.
func code(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		err = r.err
	}
	e, ok := rueidis.IsRedisErr(err)
	if !ok {
		return ""
	}
	first, _, _ := strings.Cut(e.Error(), " ")
	switch {
	case strings.Contains(e.Error(), "user executing the script") || strings.Contains(e.Error(), "ACL failure in script"):
		return "NOPERM" // which scripts leave out
	case strings.ToUpper(first) != first:
		return "ERR" // which rueidis leaves out
	}
	return strings.TrimSuffix(first, ":")
}

// Describe says in a few words what went wrong with Redis, for a reader who wants to know why a value was loaded. Of a
// server's own error it gives the code alone: the text behind it may quote what was sent.
func Describe(err error) string {
	var cert *tls.CertificateVerificationError
	var r *refusal
	switch c := code(err); {
	case errors.As(err, &r):
		return r.describe(c)
	case c == "NOAUTH" || c == "WRONGPASS":
		return "redis answered " + c + ": check the user name and the password"
	case c == "NOPERM":
		return "redis answered NOPERM: its user lacks a permission that the README lists"
	case c == "READONLY":
		return "redis answered READONLY: it is a replica"
	case c != "":
		return "redis answered " + c
	case errors.Is(err, ErrUnavailable):
		return ErrUnavailable.Error()
	case errors.Is(err, ErrSlow):
		return ErrSlow.Error()
	case errors.As(err, &cert):
		return "the certificate of redis was refused: " + describeCertificate(cert.Err)
	case isTLS(err):
		return "redis and this process cannot agree on TLS"
	case IsTimeout(err):
		return "redis did not answer in time"
	}
	return "the connection to redis failed"
}

// describeCertificate says what is wrong with a certificate, and not whose it is: a health check shows it to whoever asks.
func describeCertificate(err error) string {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, new(x509.HostnameError)):
		return "it is for another host"
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "it is signed by an authority that is not trusted"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "it has expired, or is not valid yet"
	}
	return "it is not valid"
}

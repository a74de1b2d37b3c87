package redisstore

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A breaker decides whether callers are sent to a server.
type breaker struct {
	session   atomic.Pointer[session] // nil while down
	latest    atomic.Pointer[session] // the session in use or, while there is none, the last that was
	ups       atomic.Uint64           // how often the connection has come up
	failed    atomic.Int32            // failures in a row
	opTimeout time.Duration
	grace     *grace        // of the process
	lost      chan struct{} // wakes the background goroutine, with room for one
}

// ErrSlow means that the server answers, but later than callers can wait.
var ErrSlow = errors.New("redis answers later than the limit of one operation")

// errBroken is the cause when a connection was closed.
var errBroken = errors.New("the connection has broken")

// inBulk stands for the duration of a request on the second connection. A large transfer that takes long, or longer than its
// sender can wait, says something about the network, and nothing about a server that answers everybody else. If the server hangs,
// the connections break.
const inBulk time.Duration = -1

// note counts failures of the server, and not callers that gave up. It trips the breaker after a few failures, or after one that
// says enough. An answer that has taken too long for the bytes that were sent and received counts as a failure.
func (l *link) note(ctx context.Context, s *session, took time.Duration, sent int64, results []rueidis.RedisResult) {
	ok := false
	for _, r := range results {
		err := r.Error()
		switch c := classOf(err); {
		case isUnusual(err):
			ok = true // the server answers, but refuses the command: examine finds out whether it refuses it for every key
			signal(s.suspect)
		case c == down || c == refused:
			l.trip(s, err)
			return
		case c == answer:
			ok = true
		case CallersOwn(ctx) || rueidis.IsParseErr(err) || took == inBulk:
			// The callers have gone, or the reply was not of the expected kind. This says nothing about the server.
		default:
			l.fail(s, err)
			return // one round trip is one failure
		}
	}
	limit := l.grace.now()
	switch {
	case took > limit && took > limit+allowance(sent+bytesOf(results), len(results)):
		l.fail(s, ErrSlow)
	case ok && took != inBulk && l.failed.Load() != 0:
		l.failed.Store(0)
	}
	if ok && took != inBulk {
		l.grace.answered(took)
	}
}

func bytesOf(results []rueidis.RedisResult) (sum int64) {
	for _, r := range results {
		if text, err := r.ToString(); err == nil {
			sum += int64(len(text))
		}
	}
	return sum
}

func (l *link) fail(s *session, err error) {
	if l.failed.Add(1) >= tripAfter {
		l.trip(s, err)
	}
}

// trip stops sending callers to s until it is probed.
func (l *link) trip(s *session, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.session.CompareAndSwap(s, nil) {
		return
	}
	l.cause = cause
	l.trips.count(l.addr(), cause)
	signal(l.lost)
}

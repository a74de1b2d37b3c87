package redisstore

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A breaker says whether callers are sent to a server.
type breaker struct {
	session   atomic.Pointer[session] // nil while down
	latest    atomic.Pointer[session] // the session in use or, while there is none, the last that was
	ups       atomic.Uint64           // how often the connection has come up
	failed    atomic.Int32            // failures in a row
	opTimeout time.Duration
	grace     *grace        // of the process
	lost      chan struct{} // wakes the background goroutine, with room for one
}

// ErrSlow means that the server answers, but later than callers could wait.
var ErrSlow = errors.New("redis answers later than the limit of one operation")

// errBroken is why a link is lost whose connection was closed.
var errBroken = errors.New("the connection has broken")

// inBulk stands for the time of what has travelled on the second connection. That much takes long, or longer than its sender can
// wait, says something of the way there, and nothing of a server that answers everybody else. If it hangs, its connections break.
const inBulk time.Duration = -1

// note counts failures of the server, not the ends of callers' patience, and gives the link up after a few, or after one that
// says enough. Answers that have taken too long for the bytes that were sent and received count as failures.
func (l *link) note(ctx context.Context, s *session, took time.Duration, sent int64, results []rueidis.RedisResult) {
	ok := false
	for _, r := range results {
		err := r.Error()
		switch c := classOf(err); {
		case isUnusual(err):
			ok = true // it answers, and does not do that: whether it would for any key is found out without this one
			signal(s.suspect)
		case c == down || c == refused:
			l.trip(s, err)
			return
		case c == answer:
			ok = true
		case CallersOwn(ctx) || rueidis.IsParseErr(err) || took == inBulk:
			// The callers have left, or the reply was not of the expected kind: says nothing of the server.
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

// trip sends nobody to s any more, from now on and until it is probed.
func (l *link) trip(s *session, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.session.CompareAndSwap(s, nil) {
		return
	}
	l.cause = cause
	select {
	case l.lost <- struct{}{}:
	default:
	}
}

package redisstore

import (
	"context"
	crypto "crypto/rand"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/near"
)

// channel is where processes announce their changes, on servers without tracking. No key of a cache begins with a percent sign
// that is not part of an escape.
func (s *Store) channel() string { return s.namespace.name("%changed") }

// announcements replace tracking: every process announces what it changes, and receives the announcements of the others. They are
// worth less: a program that changes a key by other means announces nothing, and an announcement is not repeated for a process
// that was not subscribed. So their validities last for a short time only.
type announcements struct {
	self  string // the prefix of this process's announcements, which it ignores
	clock func() int64

	mu        sync.Mutex
	now, last *near.Validity // the validity handed out now, and the one before; nil while not subscribed; guarded by mu
	marks     marks
}

// UntrackedLife is how long a validity from a server without tracking lasts, at most. It lasts at least half as long.
const UntrackedLife = time.Second

// armAll arms the fences of reads before they are sent: an announcement has no position among the replies.
func (a *announcements) armAll(looks []Get) {
	for _, l := range looks {
		if l.Fence != nil {
			l.Fence.Arm()
		}
	}
}

// validity is nil while this process is not subscribed.
func (a *announcements) validity() *near.Validity {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

// rotate hands out next from now on, and ends the validity before the last one.
func (a *announcements) rotate(next *near.Validity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last != nil {
		a.last.Lapse(a.clock())
	}
	a.last, a.now = a.now, next
}

// announce announces changes to the other processes, where the server does not track.
func (s *Store) announce(ctx context.Context, keys []string) {
	sole := s.table.Load().sole()
	if sole == nil || sole.Tracked() {
		return
	}
	// The result does not count for the breaker: the write before has already shown the state of the server.
	for from := 0; from < len(keys); from += pipeline {
		now := sole.session.Load()
		if now == nil || ctx.Err() != nil {
			return
		}
		results, _ := now.within(ctx, func(c rueidis.Client) []rueidis.RedisResult {
			results, _ := sendPlain(ctx, c, from, min(len(keys), from+pipeline), func(c rueidis.Client, i int) rueidis.Completed {
				return c.B().Publish().Channel(s.channel()).Message(s.announcements.self + keys[i]).Build()
			})
			return results
		})
		if isUnusual(firstError(results)) {
			signal(now.suspect)
		}
	}
}

// subscribe receives announcements until ctx ends.
func (s *Store) subscribe(ctx context.Context, client rueidis.Client) {
	a := &s.announcements
	for pause := firstRetry; ctx.Err() == nil; pause = min(2*pause, slowRefused) {
		subscribed := make(chan struct{}, 1)
		withHook := rueidis.WithOnSubscriptionHook(ctx, func(sub rueidis.PubSubSubscription) {
			if sub.Kind == "subscribe" {
				signal(subscribed)
			}
		})
		over := make(chan struct{})
		go func() {
			defer close(over)
			_ = client.Receive(withHook, client.B().Subscribe().Channel(s.channel()).Build(), func(m rueidis.PubSubMessage) {
				if key, own := strings.CutPrefix(m.Message, a.self); own {
					a.marks.arrived(key)
				} else if len(key) > len(a.self) && !isMark(key[len(a.self):]) {
					s.changed(key[len(a.self):])
				}
			})
		}()
		if s.issueValidities(subscribed, over) {
			a.rotate(nil)
			a.rotate(nil)
			s.gap()
			pause = firstRetry
		} // else there were no validities to end
		sleep(ctx, pause)
	}
}

// issueValidities hands out validities while this process is subscribed. It reports false if it never was.
func (s *Store) issueValidities(subscribed, over <-chan struct{}) bool {
	select {
	case <-subscribed:
	case <-over:
		return false
	}
	turns := time.NewTicker(UntrackedLife / 2)
	defer turns.Stop()
	for {
		s.announcements.rotate(new(near.Validity))
		select {
		case <-subscribed: // rueidis has subscribed anew: announcements may have been missed
			s.announcements.rotate(nil)
			s.announcements.rotate(nil)
			s.gap()
		case <-turns.C:
		case <-over:
			return true
		}
	}
}

func newSelf() string { return crypto.Text()[:16] + " " }

package redisstore

import (
	"context"
	crypto "crypto/rand"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/near"
)

// channel is where processes announce what they have changed, on servers that do not track what clients have read. No key
// of a cache begins with a percent sign that is not part of an escape.
func (s *Store) channel() string { return s.namespace.name("%changed") }

// announcements stand in for tracking: every process says what it changes, and hears what the others say. They are worth
// less: whoever changes a key by other means says nothing, and nothing is repeated for who was not there to hear it. So what
// they vouch for, they vouch for only a short time.
type announcements struct {
	self  string // so that a process passes over its own
	clock func() int64

	mu        sync.Mutex
	now, last *near.Voucher // what is handed out, and what was before that; nil while nothing is heard; guarded by mu
}

// UntrackedLife is how long a voucher is good, at most, from a server that does not tell of changes. It is at least half as
// long.
const UntrackedLife = time.Second

// armAll arms the fences of reads before they are sent: an announcement has no place among the replies.
func (a *announcements) armAll(looks []Get) {
	for _, l := range looks {
		if l.Fence != nil {
			l.Fence.Arm()
		}
	}
}

// voucher is nil while nothing is heard.
func (a *announcements) voucher() *near.Voucher {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

// turn hands out next from now on, and ends the voucher before the last one.
func (a *announcements) rotate(next *near.Voucher) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last != nil {
		a.last.Lose(a.clock())
	}
	a.last, a.now = a.now, next
}

// announce tells the other processes of a change, where the server does not.
func (s *Store) announce(ctx context.Context, keys []string) {
	sole := s.table.Load().sole()
	if sole == nil || sole.Tracked() {
		return
	}
	// What becomes of it says nothing of the server that the write before it has not said.
	for from := 0; from < len(keys); from += pipeline {
		now := sole.session.Load()
		if now == nil || ctx.Err() != nil {
			return
		}
		said, _ := now.within(ctx, func(c rueidis.Client) []rueidis.RedisResult {
			said, _ := sendPlain(ctx, c, from, min(len(keys), from+pipeline), func(c rueidis.Client, i int) rueidis.Completed {
				return c.B().Publish().Channel(s.channel()).Message(s.announcements.self + keys[i]).Build()
			})
			return said
		})
		if isUnusual(firstError(said)) {
			signal(now.suspect)
		}
	}
}

// hear listens to announcements until ctx ends.
func (s *Store) subscribe(ctx context.Context, client rueidis.Client) {
	a := &s.announcements
	for pause := firstRetry; ctx.Err() == nil; pause = min(2*pause, slowRefused) {
		heard := make(chan struct{}, 1)
		subscribed := rueidis.WithOnSubscriptionHook(ctx, func(sub rueidis.PubSubSubscription) {
			if sub.Kind == "subscribe" {
				select {
				case heard <- struct{}{}:
				default:
				}
			}
		})
		over := make(chan struct{})
		go func() {
			defer close(over)
			_ = client.Receive(subscribed, client.B().Subscribe().Channel(s.channel()).Build(), func(m rueidis.PubSubMessage) {
				if key, own := strings.CutPrefix(m.Message, a.self); !own && len(key) > len(a.self) {
					s.changed(key[len(a.self):])
				}
			})
		}()
		if s.issueVouchers(heard, over) {
			a.rotate(nil)
			a.rotate(nil)
			s.gap()
			pause = firstRetry
		} // else nothing was vouched for, and there is nothing to take back
		t := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			t.Stop()
		case <-t.C:
		}
	}
}

// vouch hands out vouchers while announcements are heard. It reports false if none ever were.
func (s *Store) issueVouchers(heard, over <-chan struct{}) bool {
	select {
	case <-heard:
	case <-over:
		return false
	}
	turns := time.NewTicker(UntrackedLife / 2)
	defer turns.Stop()
	for {
		s.announcements.rotate(new(near.Voucher))
		select {
		case <-heard: // rueidis has subscribed anew: something may have been missed
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

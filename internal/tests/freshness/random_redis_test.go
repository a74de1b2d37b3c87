package freshness_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Two processes with different times, one of them behind a proxy that cuts its connections: no value is older than its reader's budget, or from
// before an invalidation that the reader's own process, or for a Strong call any process, has confirmed.
func TestWhateverIsCalledNoValueFromRedisIsTooOld(t *testing.T) {
	t.Parallel()
	length := 3 * time.Second
	if d, err := time.ParseDuration(os.Getenv("ASIDE_LENGTH")); err == nil {
		length = d
	}
	for name, start := range map[string]func(*testing.T) *redistest.Server{
		"tracked": func(t *testing.T) *redistest.Server { return redistest.Start(t) }, "untracked": asidetest.StartUntracked,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			const ttl = 150 * time.Millisecond
			policy := func(stale, onError time.Duration) *aside.Policy {
				return &aside.Policy{
					Name: "items", Category: "items", TTL: ttl, Stale: stale, StaleIfError: onError, RefreshAhead: 0.3,
					SoftTimeout: 20 * time.Millisecond, LoadTimeout: time.Second, NegativeTTL: 50 * time.Millisecond, DegradedTTL: 300 * time.Millisecond,
				}
			}
			type process struct {
				c *aside.Cache
				p *aside.Policy
			}
			options := func(addr string) aside.Options {
				o := asidetest.At(addr)
				if name == "untracked" {
					o = asidetest.Anonymously(addr) // the rules of a user are for a server that tracks
				}
				o.MaxLoads, o.OpTimeout = 4, 200*time.Millisecond
				return o
			}
			processes := []process{
				{asidetest.NewCache(t, options(server.Addr())), policy(100*time.Millisecond, 300*time.Millisecond)},
				{asidetest.NewCache(t, options(proxy.Addr())), policy(50*time.Millisecond, 150*time.Millisecond)},
			}
			x := &chance{t: t, p: processes[0].p, barrier: map[string]int64{}}
			strong := map[string]int64{} // as barrier, of all processes
			var mu sync.Mutex            // guards strong
			var calls sync.WaitGroup
			one := func(n int) {
				at := n % 2
				c, p := processes[at].c, processes[at].p
				key := p.Key(rand.IntN(4))
				name := key.String()
				own := strconv.Itoa(at) + name
				x.mu.Lock()
				barrier, seq := x.barrier[own], x.next()
				x.mu.Unlock()
				mu.Lock()
				everywhere := strong[name]
				mu.Unlock()
				switch rand.IntN(40) {
				case 0, 1:
					receipt, err := c.Invalidate(t.Context(), key)
					if err == nil {
						x.mu.Lock()
						x.barrier[own] = max(x.barrier[own], seq)
						x.mu.Unlock()
						if receipt.Confirmed {
							mu.Lock()
							strong[name] = max(strong[name], seq)
							mu.Unlock()
						}
					}
					return
				case 2:
					x.mu.Lock()
					x.mode = []string{"", "", "fails", "not found", "panics", "no store", "late tag"}[rand.IntN(7)]
					x.takes = []time.Duration{0, time.Millisecond, 40 * time.Millisecond, 200 * time.Millisecond}[rand.IntN(4)]
					x.mu.Unlock()
					return
				case 3:
					receipt, err := c.InvalidateTags(t.Context(), "late")
					_, _ = receipt, err
					return
				}
				load := func(ctx context.Context) (version, error) { return x.load(ctx, name) }
				began, isStrong := time.Now(), rand.IntN(10) == 0
				var opts []aside.CallOption
				if isStrong {
					opts = append(opts, aside.Strong())
				}
				r, err := aside.Lookup(t.Context(), c, key, load, opts...)
				x.mu.Lock()
				defer x.mu.Unlock()
				say := func(what string) {
					x.problem(name, what, "process", strconv.Itoa(at), "status", string(r.Status), "tier", string(r.Tier), "reason", r.Reason, "age", began.Sub(r.Value.Loaded).String(),
						"seq", strconv.FormatInt(r.Value.Seq, 10), "barrier", strconv.FormatInt(barrier, 10), "everywhere", strconv.FormatInt(everywhere, 10))
				}
				if err != nil {
					if !errors.Is(err, errDown) && strings.Contains(err.Error(), "without a result") {
						say(err.Error())
					}
					return
				}
				age := began.Sub(r.Value.Loaded)
				switch {
				case r.Status == aside.StatusStale && age >= ttl+max(p.Stale, p.StaleIfError):
					say("older than its budget")
				case r.Reason == "past its TTL, being refreshed" && age >= ttl+p.Stale:
					say("served at once after the time for that")
				case r.Value.Seq <= barrier:
					say("from before an invalidation of this process")
				case isStrong && r.Value.Seq <= everywhere:
					say("from before a confirmed invalidation")
				}
			}
			end := time.Now().Add(length)
			for n := range 8 {
				calls.Go(func() {
					for time.Now().Before(end) {
						one(n)
						<-time.After(time.Duration(rand.Int64N(int64(3 * time.Millisecond))))
					}
				})
			}
			calls.Go(func() {
				for time.Now().Before(end) {
					<-time.After(time.Duration(rand.Int64N(int64(500 * time.Millisecond))))
					proxy.CloseConnections()
				}
			})
			calls.Wait()
			x.mu.Lock()
			defer x.mu.Unlock()
			for _, p := range x.problems[:min(len(x.problems), 10)] {
				t.Error(p)
			}
			for _, p := range processes {
				m := p.c.Metrics().Labels["items"]
				t.Logf("%+v", m)
				require.LessOrEqual(t, m.StaleOnError, m.StaleHits)
			}
		})
	}
}

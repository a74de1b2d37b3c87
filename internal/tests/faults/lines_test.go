package faults_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// A written is a line of the log.
type written struct {
	level   slog.Level
	message string
	attrs   map[string]string // by name, as text
	names   []string          // in their order
}

// A recorder is a handler that keeps the lines. It counts how often it was asked whether it wants some.
type recorder struct {
	level slog.Level
	asked atomic.Int64

	mu    sync.Mutex
	lines []written // guarded by mu
}

func (h *recorder) Enabled(_ context.Context, level slog.Level) bool {
	h.asked.Add(1)
	return level >= h.level
}
func (h *recorder) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *recorder) WithGroup(string) slog.Handler      { return h }
func (h *recorder) Handle(_ context.Context, r slog.Record) error {
	line := written{level: r.Level, message: r.Message, attrs: map[string]string{}}
	r.Attrs(func(a slog.Attr) bool {
		line.attrs[a.Key] = a.Value.String()
		line.names = append(line.names, a.Key)
		return true
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, line)
	return nil
}

// of returns the lines with a message.
func (h *recorder) of(message string) (lines []written) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.lines {
		if l.message == message {
			lines = append(lines, l)
		}
	}
	return lines
}

// fixed are the names that attributes have.
var fixed = strings.Fields("policy key node cause error outcome took count suppressed away replayed oldest ttl age max_age unconfirmed" +
	" waiters mode policies max_entries max_bytes max_loads by names keys tags patterns removed confirmed actor other type field codec stack")

// any stands for the value of an attribute that the test does not know.
const anything = "*"

// Each line that a cache without a server can write is caused once, with its level and its attributes. In a bubble all times are exact.
func TestLinesOfTheLogHaveTheirLevelsAndAttributes(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	items := asidetest.Items
	get := func(c *aside.Cache, p aside.Policy, load func(context.Context) (string, error)) {
		_, _ = aside.GetOrLoad(ctx, c, p.Key("a"), load)
	}
	fails := func(context.Context) (string, error) { return "", asidetest.ErrLoader }
	takes := func(d time.Duration) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { time.Sleep(d); return "v", nil }
	}
	away := aside.Options{Redis: rueidis.ClientOption{InitAddress: []string{"redis.test:6379"}, ForceSingleClient: true, DialCtxFn: asidetest.Nowhere}}
	type attrs = map[string]string
	for message, c := range map[string]struct {
		level   slog.Level
		attrs   attrs
		options aside.Options
		cause   func(t *testing.T, c *aside.Cache)
	}{
		"aside: started": {
			level: slog.LevelInfo, options: aside.Options{Policies: []aside.Policy{items}, MaxEntries: 7, MaxBytes: 8, MaxLoads: 9},
			attrs: attrs{"mode": "memory", "policies": "1", "max_entries": "7", "max_bytes": "8", "max_loads": "9"},
		},
		"aside: closed": {
			level: slog.LevelInfo, attrs: attrs{"took": "0s", "unconfirmed": "0", "keys": "0", "tags": "0", "patterns": "0"},
			cause: func(_ *testing.T, c *aside.Cache) { c.Close(); c.Close() },
		},
		"aside: redis unavailable, serving from memory and loaders": {
			level: slog.LevelWarn, attrs: attrs{"cause": anything, "error": anything}, options: away,
			cause: func(*testing.T, *aside.Cache) { time.Sleep(time.Minute) },
		},
		"aside: invalidations wait for redis": {
			level: slog.LevelWarn, attrs: attrs{"oldest": "10s", "count": "2"}, options: away,
			cause: func(t *testing.T, c *aside.Cache) {
				time.Sleep(time.Minute + time.Second)
				_, err := c.Invalidate(ctx, items.Key("a"), items.Key("b"))
				require.NoError(t, err)
				time.Sleep(15 * time.Second)
			},
		},
		"aside: a load failed": {
			level: slog.LevelWarn,
			attrs: attrs{"policy": "items", "key": "items:a", "count": "1", "outcome": "error", "took": "2s", "waiters": "3", "error": asidetest.ErrLoader.Error()},
			cause: func(_ *testing.T, c *aside.Cache) {
				slowly := func(ctx context.Context) (string, error) { time.Sleep(2 * time.Second); return fails(ctx) }
				go get(c, items, slowly)
				go get(c, items, slowly)
				get(c, items, slowly)
			},
		},
		"aside: a load was slow": {
			level: slog.LevelWarn, options: aside.Options{SlowLoad: time.Second},
			attrs: attrs{"policy": "items", "key": "items:a", "count": "1", "outcome": "ok", "took": "1s"},
			cause: func(t *testing.T, c *aside.Cache) {
				_, _ = aside.GetOrLoad(ctx, c, items.Key("quick"), takes(time.Second-1))
				get(c, items, takes(time.Second))
				at := time.Now()
				require.Equal(t, []aside.SlowLoad{{At: at, Policy: "items", Key: "items:a", Count: 1, Outcome: aside.OutcomeOK, Took: time.Second}}, c.Recent().SlowLoads)
			},
		},
		"aside: loads are refused": {
			level: slog.LevelWarn, options: aside.Options{MaxLoads: 1, MaxQueuedLoads: -1},
			attrs: attrs{"policy": "items", "cause": "load queue full (MaxLoads=1, MaxQueuedLoads=-1)"},
			cause: func(_ *testing.T, c *aside.Cache) {
				go get(c, items, takes(time.Second))
				synctest.Wait()
				_, _ = aside.GetOrLoad(ctx, c, items.Key("b"), takes(0))
				time.Sleep(time.Second)
			},
		},
		"aside: loader panicked, its callers get an error or an older value": {
			level: slog.LevelError, attrs: attrs{"policy": "items", "key": "items:a", "error": "loader panicked: oops", "stack": anything},
			cause: func(_ *testing.T, c *aside.Cache) {
				get(c, items, func(context.Context) (string, error) { panic("oops") })
			},
		},
		"aside: value could not be loaded anew, its callers get the older one": {
			level: slog.LevelWarn, attrs: attrs{"policy": "stale", "key": "stale:a", "error": asidetest.ErrLoader.Error()},
			cause: func(t *testing.T, c *aside.Cache) {
				stale := aside.Policy{Name: "stale", Category: "stale", TTL: time.Second, Stale: time.Hour}
				get(c, stale, takes(0))
				time.Sleep(time.Second)
				get(c, stale, fails)
				synctest.Wait()
			},
		},
		"aside: loads of a policy take longer than half of their TTL, so their values are loaded anew later than the policy says: set a longer TTL": {
			level: slog.LevelWarn, attrs: attrs{"policy": "stale", "key": "stale:a", "took": "2s", "ttl": "1s"},
			cause: func(t *testing.T, c *aside.Cache) {
				get(c, aside.Policy{Name: "stale", Category: "stale", TTL: time.Second, Stale: time.Hour}, takes(2*time.Second))
			},
		},
		"aside: value not cached": {
			level: slog.LevelWarn, options: aside.Options{MaxValueBytes: 100}, attrs: attrs{"policy": "items", "key": "items:a", "error": anything},
			cause: func(_ *testing.T, c *aside.Cache) { get(c, items, asidetest.Value(strings.Repeat("v", 1000))) },
		},
		"aside: two policies of one category use the same key and replace each other's values: add a part to the keys of one policy, or give it its own Category": {
			level: slog.LevelWarn, attrs: attrs{"policy": "other", "other": "items", "key": "items:a"},
			cause: func(_ *testing.T, c *aside.Cache) {
				get(c, items, takes(0))
				get(c, aside.Policy{Name: "other", Category: "items", TTL: time.Hour}, takes(0))
			},
		},
		"aside: inconsistent cached value: its loader returns a different value, and no invalidation was received": {
			level: slog.LevelWarn, attrs: attrs{"policy": "items", "key": "items:a", "age": "1s"},
			options: aside.Options{ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 1, SettleTime: time.Second, MaxPerSecond: -1}},
			cause: func(_ *testing.T, c *aside.Cache) {
				get(c, items, asidetest.Value("old"))
				get(c, items, asidetest.Value("new"))
				time.Sleep(2 * time.Second)
			},
		},
		"aside: HashID used without Options.Secret: guessable ids can be recovered from keys": {
			level: slog.LevelWarn, attrs: attrs{}, cause: func(_ *testing.T, c *aside.Cache) { c.HashID("a"); c.HashID("b") },
		},
		"aside: Options.OnInvalidated panicked": {
			level: slog.LevelError, attrs: attrs{"error": "oops"}, options: aside.Options{OnInvalidated: func(aside.Invalidation) { panic("oops") }},
			cause: func(t *testing.T, c *aside.Cache) { _, _ = c.Invalidate(ctx, items.Key("a")) },
		},
		"aside: Close gave up waiting for loaders that ignore context cancellation": {
			level: slog.LevelWarn, attrs: attrs{},
			cause: func(_ *testing.T, c *aside.Cache) {
				go get(c, items, takes(time.Minute))
				synctest.Wait()
				c.Close()
				time.Sleep(time.Minute)
			},
		},
		"aside: Close gave up waiting for calls or OnInvalidated: a codec, or OnInvalidated itself, does not return": {
			level: slog.LevelWarn, attrs: attrs{}, options: aside.Options{OnInvalidated: func(aside.Invalidation) { time.Sleep(time.Minute) }},
			cause: func(_ *testing.T, c *aside.Cache) {
				_, _ = c.Invalidate(ctx, items.Key("a"))
				c.Close()
				time.Sleep(time.Minute)
			},
		},
		"aside: miss": {
			level: slog.LevelDebug, attrs: attrs{"policy": "items", "key": "items:a", "cause": "absent"},
			cause: func(t *testing.T, c *aside.Cache) {
				get(c, items, takes(0))
				get(c, items, takes(0)) // a hit
			},
		},
		"aside: invalidated": {
			level: slog.LevelDebug, attrs: attrs{"by": "tags", "names": "[a b]", "count": "2", "removed": "0", "confirmed": "true", "took": "0s", "actor": "deploy"},
			cause: func(t *testing.T, c *aside.Cache) { _, _ = c.InvalidateTags(aside.WithActor(ctx, "deploy"), "a", "b") },
		},
	} {
		t.Run(message, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log := &recorder{level: slog.LevelDebug}
				c.options.Logger = slog.New(log)
				cache, err := aside.New(c.options)
				require.NoError(t, err)
				if c.cause != nil {
					c.cause(t, cache)
				}
				require.NoError(t, cache.Close())
				synctest.Wait()
				lines := log.of(message)
				require.Len(t, lines, 1, "%+v", log.lines)
				for name, value := range c.attrs {
					if value == anything {
						require.NotEmpty(t, lines[0].attrs[name], name)
						c.attrs[name] = lines[0].attrs[name]
					}
				}
				require.Equal(t, c.level, lines[0].level)
				require.Equal(t, c.attrs, lines[0].attrs)
				require.Len(t, lines[0].names, len(c.attrs), "each once")
				for _, line := range log.lines {
					for _, name := range line.names {
						require.Contains(t, fixed, name, line.message)
					}
				}
			})
		})
	}
}

// After the first line about a policy comes one in ten seconds, which says for how many it stands. Another policy has lines of its own.
func TestALineSaysHowManyWereSuppressed(t *testing.T) {
	t.Parallel()
	log := &recorder{level: slog.LevelInfo}
	asidetest.InBubble(t, aside.Options{Logger: slog.New(log), Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		a, b := aside.Policy{Name: "a", Category: "a", TTL: time.Hour}, aside.Policy{Name: "b", Category: "b", TTL: time.Hour}
		for range 25 {
			for _, p := range []aside.Policy{a, b} {
				_, _ = aside.GetOrLoad(t.Context(), c, p.Key(1), func(context.Context) (string, error) { return "", asidetest.ErrLoader })
			}
			time.Sleep(time.Second)
		}
	})
	var suppressed []string
	for _, line := range log.of("aside: a load failed") {
		suppressed = append(suppressed, line.attrs["policy"]+line.attrs["suppressed"])
	}
	require.Equal(t, []string{"a", "b", "a9", "b9", "a9", "b9"}, suppressed)
}

// Invalidations that wait are logged when they have waited for ten seconds, then each minute.
func TestInvalidationsThatWaitAreLoggedEachMinute(t *testing.T) {
	t.Parallel()
	log := &recorder{level: slog.LevelInfo}
	o := aside.Options{Redis: rueidis.ClientOption{InitAddress: []string{"redis.test:6379"}, ForceSingleClient: true, DialCtxFn: asidetest.Nowhere}, Logger: slog.New(log)}
	asidetest.InBubble(t, o, func(t *testing.T, c *aside.Cache) {
		time.Sleep(4 * time.Second)
		_, err := c.InvalidateTags(t.Context(), "x")
		require.NoError(t, err)
		time.Sleep(9 * time.Second)
		require.Empty(t, log.of("aside: invalidations wait for redis"))
		time.Sleep(3*time.Minute + 2*time.Second)
		var oldest []string
		for _, line := range log.of("aside: invalidations wait for redis") {
			oldest = append(oldest, line.attrs["oldest"])
		}
		require.Equal(t, []string{"10s", "1m10s", "2m10s", "3m10s"}, oldest)
	})
	closed := log.of("aside: closed")
	require.Len(t, closed, 1)
	require.Equal(t, "2", closed[0].attrs["unconfirmed"], "the tag, and the sequence of tags")
	require.Equal(t, "1", closed[0].attrs["tags"])
	require.Equal(t, slog.LevelWarn, closed[0].level)
}

// Whatever goes wrong at once, an operator can still read the log.
func TestALogUnderLoadHasFewerThanALineASecondAndPolicy(t *testing.T) {
	t.Parallel()
	var log asidetest.Logbook
	o := aside.Options{
		Logger: slog.New(slog.NewJSONHandler(&log, nil)), MaxLoads: 2, MaxQueuedLoads: 2, MaxValueBytes: 1000, SlowLoad: time.Millisecond, Backoff: -1,
		ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 1, SettleTime: time.Millisecond},
	}
	const seconds, policies = 60, 4
	asidetest.InBubble(t, o, func(t *testing.T, c *aside.Cache) {
		var callers sync.WaitGroup
		for n := range policies * 5 {
			p := aside.Policy{Name: fmt.Sprint("p", n%policies), Category: fmt.Sprint("p", n%policies), TTL: time.Second, StaleIfError: time.Minute, RefreshAhead: 0.5}
			callers.Go(func() {
				for i := range seconds * 100 {
					_, _ = aside.GetOrLoad(t.Context(), c, p.Key(i%7), func(context.Context) (string, error) {
						switch time.Sleep(2 * time.Millisecond); (i + n) % 5 {
						case 0:
							return "", asidetest.ErrLoader
						case 1:
							panic("oops")
						case 2:
							return strings.Repeat("v", 10_000), nil
						}
						return fmt.Sprint(i), nil
					})
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		callers.Wait()
	})
	lines, kinds := map[string]int{}, map[string]bool{}
	for text := range strings.Lines(log.String()) {
		var line struct{ Msg, Policy string }
		require.NoError(t, json.Unmarshal([]byte(text), &line))
		lines[line.Policy]++
		kinds[line.Msg] = true
	}
	for p, n := range lines {
		require.Less(t, n, seconds, "%q: %v", p, kinds)
	}
	require.Len(t, lines, policies+1, "those of the cache as a whole have no policy")
	require.Greater(t, len(kinds), 6, "%v", kinds)
}

// A miss asks the handler once whether it wants to see each miss, and a hit asks nothing.
func TestAMissAsksTheLoggerOnce(t *testing.T) {
	t.Parallel()
	log := &recorder{level: slog.LevelInfo}
	c := asidetest.NewCache(t, aside.Options{Logger: slog.New(log)})
	before := log.asked.Load()
	for range 100 { // one miss
		_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v"))
		require.NoError(t, err)
	}
	require.Equal(t, before+1, log.asked.Load())
	_, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"))
	require.NoError(t, err)
	require.Equal(t, before+2, log.asked.Load())
	require.Empty(t, log.of("aside: miss"))
}

// The end of an outage says how long it was, why, and what is sent again.
func TestTheEndOfAnOutageIsLoggedWithItsCause(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	log := &recorder{level: slog.LevelInfo}
	addr := asidetest.Mini(t)
	o := asidetest.At(addr)
	o.Logger = slog.New(log)
	o.Redis.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		if !up.Load() {
			return nil, errors.New("not yet")
		}
		return d.DialContext(ctx, "tcp", addr)
	}
	c := asidetest.NewCache(t, o)
	asidetest.Eventually(t, "it is logged", func() bool { return len(log.of("aside: redis unavailable, serving from memory and loaders")) == 1 })
	_, err := c.Invalidate(t.Context(), asidetest.Items.Key("a"), asidetest.Items.Key("b"))
	require.NoError(t, err)
	up.Store(true)
	asidetest.Eventually(t, "it is logged", func() bool { return len(log.of("aside: connected to redis")) == 1 })
	line := log.of("aside: connected to redis")[0]
	require.Equal(t, []string{"away", "cause", "replayed"}, line.names)
	require.Equal(t, "Options.Redis.DialCtxFn failed: the log has its error", line.attrs["cause"])
	require.Equal(t, "2", line.attrs["replayed"])
	away, err := time.ParseDuration(line.attrs["away"])
	require.NoError(t, err)
	require.Positive(t, away)
}

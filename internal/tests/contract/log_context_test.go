package contract_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

type traceKey struct{}

// A traceHandler is a log handler that finds the trace of a call in the line's context.
type traceHandler struct {
	mu     sync.Mutex
	traces map[string]any  // by message; guarded by mu
	ended  map[string]bool // whether the context had ended; guarded by mu
}

func (h *traceHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *traceHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *traceHandler) WithGroup(string) slog.Handler            { return h }
func (h *traceHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.traces[r.Message], h.ended[r.Message] = ctx.Value(traceKey{}), ctx.Err() != nil
	return nil
}

// A line about a call has the values of the call's context, and not its end: the line may be written later.
func TestALogLineHasTheContextOfItsCall(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := aside.Policy{Name: "traced", Category: "traced", TTL: time.Minute, LoadGrace: time.Minute}
	onRedis := asidetest.At(server.Addr())
	for _, test := range []struct {
		message string
		options aside.Options
		call    func(ctx context.Context, c *aside.Cache)
	}{
		{"aside: loader panicked, its callers get an error or an older value", aside.Options{}, func(ctx context.Context, c *aside.Cache) {
			_, _ = aside.GetOrLoad(ctx, c, p.Key("a"), func(context.Context) (string, error) { panic("boom") })
		}},
		{"aside: a load failed", aside.Options{}, func(ctx context.Context, c *aside.Cache) {
			_, _ = aside.GetOrLoad(ctx, c, p.Key("a"), func(context.Context) (string, error) { return "", asidetest.ErrLoader })
		}},
		{"aside: a load was slow", aside.Options{SlowLoad: 1}, func(ctx context.Context, c *aside.Cache) {
			_, _ = aside.GetOrLoad(ctx, c, p.Key("a"), func(context.Context) (string, error) { time.Sleep(time.Millisecond); return "v", nil })
		}},
		{"aside: loads are refused", aside.Options{MaxLoads: 1, MaxQueuedLoads: -1}, func(ctx context.Context, c *aside.Cache) {
			_, _ = aside.GetOrLoad(ctx, c, p.Key("a"), func(context.Context) (string, error) {
				refused := make(chan struct{})
				go func() { // neither on the goroutine nor with the context of the loader, so the load needs a place of its own
					defer close(refused)
					_, _ = aside.GetOrLoad(ctx, c, p.Key("b"), asidetest.Value("v"))
				}()
				<-refused
				return "v", nil
			})
		}},
		{"aside: miss", aside.Options{}, func(ctx context.Context, c *aside.Cache) { _, _ = aside.Get[string](ctx, c, p.Key("a")) }},
		{"aside: invalidated", aside.Options{}, func(ctx context.Context, c *aside.Cache) { _, _ = c.Invalidate(ctx, p.Key("a")) }},
		{"aside: value not cached", aside.Options{MaxValueBytes: 100}, func(ctx context.Context, c *aside.Cache) {
			_, _ = aside.GetOrLoad(ctx, c, p.Key("a"), asidetest.Value(string(make([]byte, 1000))))
		}},
		{"aside: unusable value in redis treated as a miss", onRedis, func(ctx context.Context, c *aside.Cache) {
			server.MustDo(t, "SET", p.Key("foreign").String(), "written by something else")
			_, _ = aside.GetOrLoad(ctx, c, p.Key("foreign"), asidetest.Value("v"))
		}},
		{"aside: value could not be loaded anew, its callers get the older one", aside.Options{}, func(ctx context.Context, c *aside.Cache) {
			p := aside.Policy{Name: "stale", Category: "stale", TTL: time.Millisecond, Stale: time.Hour}
			if err := aside.Set(ctx, c, p.Key("a"), "old"); err != nil {
				t.Error(err)
			}
			asidetest.Eventually(t, "a refresh fails", func() bool {
				_, err := aside.GetOrLoad(ctx, c, p.Key("a"), func(context.Context) (string, error) { return "", asidetest.ErrLoader })
				return err == nil && c.Metrics().Labels["stale"].RefreshErrors > 0
			})
		}},
		{"aside: inconsistent cached value: its loader returns a different value, and no invalidation was received",
			aside.Options{ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 1, SettleTime: time.Millisecond, MaxPerSecond: -1}},
			func(ctx context.Context, c *aside.Cache) {
				if err := aside.Set(ctx, c, p.Key("a"), "old"); err != nil {
					t.Error(err)
				}
				asidetest.Eventually(t, "the difference is found", func() bool {
					_, err := aside.GetOrLoad(ctx, c, p.Key("a"), asidetest.Value("new"))
					return err == nil && c.Metrics().Labels["traced"].Inconsistent > 0
				})
			}},
	} {
		t.Run(test.message, func(t *testing.T) {
			h := &traceHandler{traces: map[string]any{}, ended: map[string]bool{}}
			test.options.Logger = slog.New(h)
			c := asidetest.NewCache(t, test.options)
			if len(test.options.Redis.InitAddress) > 0 {
				asidetest.Eventually(t, "the cache connects", func() bool { return c.Health().State == aside.StateConnected })
			}
			ctx, end := context.WithCancel(context.WithValue(t.Context(), traceKey{}, "trace of the call"))
			test.call(ctx, c)
			end()
			asidetest.Eventually(t, "the line is written", func() bool {
				h.mu.Lock()
				defer h.mu.Unlock()
				_, written := h.traces[test.message]
				return written
			})
			h.mu.Lock()
			defer h.mu.Unlock()
			require.Equal(t, "trace of the call", h.traces[test.message])
			require.False(t, h.ended[test.message])
		})
	}
}

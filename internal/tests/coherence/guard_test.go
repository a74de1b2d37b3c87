package coherence_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A badHandler does something else than to write the line.
type badHandler struct {
	slog.Handler
	instead func()
	lines   atomic.Int64
}

func (h *badHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *badHandler) Handle(context.Context, slog.Record) error {
	h.lines.Add(1)
	h.instead()
	return nil
}

// Hazard 77.
func TestALoggerThatPanicsOrBlocksHoldsUpNothing(t *testing.T) {
	t.Parallel()
	forever := make(chan struct{})
	t.Cleanup(func() { close(forever) })
	for name, instead := range map[string]func(){
		"panics": func() { panic("oops") }, "exits": runtime.Goexit, "blocks": func() { <-forever },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
			proxy.Refuse(true)
			handler := &badHandler{instead: instead}
			o := asidetest.At(proxy.Addr())
			o.Logger = slog.New(handler)
			o.OnInvalidated = func(aside.Invalidation) { panic("oops") }
			c := asidetest.NewCache(t, o)
			asidetest.Eventually(t, "something is logged", func() bool { return handler.lines.Load() > 0 })
			proxy.Refuse(false)
			asidetest.Eventually(t, "it connects all the same", func() bool { return c.Health().State == aside.StateConnected })
			receipt, err := c.Invalidate(t.Context(), asidetest.Items.Key("a")) // which is logged, since it cannot be told
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v"))
			require.NoError(t, err)
			require.Equal(t, "v", v)
			c.HashID("logs a warning")
			require.NoError(t, c.Close())
		})
	}
}

// A nilError is an error as long as it is not nil: a pointer to nothing in an interface is what beginners return.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

func (e *nilError) Is(target error) bool { return target == errors.New(e.text) }

func (e *nilError) Unwrap() error { return errors.New(e.text) }

// Hazard 77: methods of the loader's error panic wherever somebody looks at it.
func TestAnErrorWhoseMethodsPanicIsAPanicOfItsLoader(t *testing.T) {
	t.Parallel()
	bad := error((*nilError)(nil))
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		for name, load := range map[string]func(context.Context) (string, error){
			"returned": func(context.Context) (string, error) { return "", bad },
			"panicked": func(context.Context) (string, error) { panic(bad) },
		} {
			check := func(err error) {
				t.Helper()
				require.ErrorIs(t, err, &aside.Error{Code: aside.CodeLoaderPanic}, name)
				require.Contains(t, err.Error(), "nilError")
			}
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), load)
			check(err)
			_, err = aside.GetOrLoadMany(t.Context(), c, []int{1, 2}, asidetest.ItemKey, func(ctx context.Context, _ []int) (map[int]string, error) {
				v, err := load(ctx)
				return map[int]string{1: v}, err
			})
			if name == "returned" {
				check(err)
			}
			_, err = aside.GetOrLoadMany(t.Context(), c, []int{3, 4}, asidetest.ItemKey, func(ctx context.Context, _ []int) (map[int]string, error) {
				_, err := load(ctx)
				return map[int]string{4: "v"}, &aside.BatchError[int]{Errors: map[int]error{3: err}}
			})
			check(err)
			_, err = aside.NewLoader(c, asidetest.Items, func(ctx context.Context, _ int) (string, error) { return load(ctx) }).GetMany(t.Context(), []int{5})
			check(err)
		}
		for i := range 6 {
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("after", i), asidetest.Value("v"))
			require.NoError(t, err)
		}
	})
}

func TestOnInvalidatedThatPanicsOrExitsIsToldOfTheNextOne(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){"panics": func() { panic("oops") }, "exits": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var told []string
			o := aside.Options{Logger: asidetest.Quiet(), OnInvalidated: func(i aside.Invalidation) {
				mu.Lock()
				told = append(told, i.Keys...)
				mu.Unlock()
				end()
			}}
			asidetest.InBubble(t, o, func(t *testing.T, c *aside.Cache) {
				for i := range 3 {
					_, err := c.Invalidate(t.Context(), asidetest.Items.Key(i))
					require.NoError(t, err)
				}
				synctest.Wait()
				require.Equal(t, []string{"items:0", "items:1", "items:2"}, told)
			})
		})
	}
}

// Hazard 77: what the program brings for connections runs on goroutines of the connector and of the client library.
func TestADialerThatPanicsIsOneThatFails(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr()
	for name, end := range map[string]func() error{
		"panics":    func() error { panic("oops") },
		"exits":     func() error { runtime.Goexit(); return nil },
		"nil error": func() error { return (*nilError)(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for hook, set := range map[string]func(o *rueidis.ClientOption, fail func() error){
				"DialCtxFn": func(o *rueidis.ClientOption, fail func() error) {
					o.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
						if err := fail(); err != nil {
							return nil, err
						}
						return d.DialContext(ctx, "tcp", addr)
					}
				},
				"AuthCredentialsFn": func(o *rueidis.ClientOption, fail func() error) {
					o.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
						return rueidis.AuthCredentials{Username: o.Username, Password: o.Password}, fail()
					}
				},
			} {
				var tries atomic.Int64
				o := asidetest.At(addr)
				set(&o.Redis, func() error {
					if tries.Add(1) <= 3 {
						return end()
					}
					return nil
				})
				c := asidetest.NewCache(t, o)
				asidetest.Eventually(t, hook+": it connects at last", func() bool { return c.Health().State == aside.StateConnected })
			}
		})
	}
}

// A touchy value cannot be compared.
type touchy struct{ N int64 }

func (touchy) Equal(touchy) bool { panic("oops") }

func TestACheckWhoseComparisonPanicsSaysNothing(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Logger: asidetest.Quiet(), ConsistencyCheck: aside.ConsistencyCheck{SampleRate: 1, SettleTime: time.Second}}, func(t *testing.T, c *aside.Cache) {
		var n atomic.Int64
		for range 3 {
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (touchy, error) { return touchy{n.Add(1)}, nil })
			require.NoError(t, err)
			time.Sleep(time.Minute)
		}
		m := c.Metrics().Labels["items"]
		require.EqualValues(t, 2, m.Unchecked)
		require.Zero(t, m.Inconsistent)
	})
}

package freshness_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// Hazard 49: what a loader may hold.

type traceKey struct{}

// A load in the background begins with the values of the call that has begun it, and is not cancelled when that call has returned and its context
// has ended.
func TestALoadInTheBackgroundHasTheValuesOfItsCallAndOutlivesIt(t *testing.T) {
	t.Parallel()
	type seen struct {
		trace any
		err   error
		left  time.Duration // until the deadline
	}
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		p := brief(func(p *aside.Policy) { p.Stale, p.LoadTimeout = time.Hour, time.Minute })
		over, got := make(chan struct{}), make(chan seen, 1)
		load := func(ctx context.Context) (string, error) {
			<-over // the call has returned, and its context has ended
			select {
			case <-ctx.Done(): // as the client of a source waits for it
			default:
			}
			s := seen{trace: ctx.Value(traceKey{}), err: ctx.Err()}
			if deadline, ok := ctx.Deadline(); ok {
				s.left = time.Until(deadline)
			}
			got <- s
			return "new", ctx.Err()
		}
		for name, call := range map[string]func(ctx context.Context) (string, error){
			"GetOrLoad": func(ctx context.Context) (string, error) {
				return aside.GetOrLoad(ctx, c, p.Key("GetOrLoad"), load)
			},
			"GetOrLoadMany": func(ctx context.Context) (string, error) {
				values, err := aside.GetOrLoadMany(ctx, c, []string{"GetOrLoadMany"}, func(id string) aside.Key { return p.Key(id) },
					func(ctx context.Context, ids []string) (map[string]string, error) {
						v, err := load(ctx)
						return map[string]string{ids[0]: v}, err
					})
				return values["GetOrLoadMany"], err
			},
			"Loader": func(ctx context.Context) (string, error) {
				l := aside.NewLoader(c, *p, func(ctx context.Context, _ string) (string, error) { return load(ctx) })
				return l.Get(ctx, "Loader")
			},
		} {
			_, err := aside.GetOrLoad(t.Context(), c, p.Key(name), asidetest.Value("old"))
			require.NoError(t, err)
			pastTTL(t, c, p.Key(name))
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), traceKey{}, name))
			over = make(chan struct{})
			v, err := call(ctx)
			require.NoError(t, err)
			require.Equal(t, "old", v)
			cancel()
			close(over)
			var s seen
			select {
			case s = <-got:
			case <-time.After(asidetest.Bound):
				require.Fail(t, "the loader was not called")
			}
			require.Equal(t, name, s.trace)
			require.NoError(t, s.err, "the load is not cancelled with its call")
			require.Positive(t, s.left)
			require.LessOrEqual(t, s.left, p.LoadTimeout)
			asidetest.Eventually(t, "the new value is cached", func() bool {
				v, err := aside.Get[string](t.Context(), c, p.Key(name))
				return err == nil && v == "new"
			})
			require.Zero(t, c.Metrics().Labels["items"].RefreshErrors)
		}
	})
}

var errTxDone = errors.New("the transaction has ended")

// A loader uses a transaction of the request that has called it. In the background that has ended, so each such load fails, and no caller sees it.
// The failures are counted and logged. After Stale, callers wait for a load of their own request, and get the value of that: or, if the loader
// keeps the transaction of the first request, the older value, with what is wrong as its reason.
func TestALoaderThatHoldsWhatEndsWithItsCallIsCountedAndLogged(t *testing.T) {
	t.Parallel()
	type tx struct{ done chan struct{} }
	for _, kept := range []bool{false, true} {
		t.Run(map[bool]string{false: "of the caller", true: "of the first request"}[kept], func(t *testing.T) {
			t.Parallel()
			var log asidetest.Logbook
			asidetest.InBubble(t, aside.Options{Logger: log.Logger(), Backoff: -1}, func(t *testing.T, c *aside.Cache) {
				key := items(func(p *aside.Policy) { p.Stale, p.StaleIfError = time.Minute, time.Hour }).Key("a")
				var first *tx
				request := func() (aside.Result[string], error) {
					ctx, cancel := context.WithCancel(context.WithValue(t.Context(), traceKey{}, &tx{make(chan struct{})}))
					defer cancel()
					of := ctx.Value(traceKey{}).(*tx)
					defer close(of.done)
					return aside.Lookup(ctx, c, key, func(ctx context.Context) (string, error) {
						held := ctx.Value(traceKey{}).(*tx)
						if first == nil {
							first = held
						} else if kept {
							held = first
						}
						time.Sleep(time.Millisecond) // the call returns, if it does not wait for the load
						select {
						case <-held.done:
							return "", errTxDone
						default:
							return "v" + time.Now().Format("4:05"), nil
						}
					})
				}
				began := time.Now()
				r, err := request()
				require.NoError(t, err)
				old := r.Value
				for time.Since(began) < ttl+59*time.Second {
					time.Sleep(100 * time.Millisecond)
					r, err := request()
					require.NoError(t, err)
					require.Equal(t, old, r.Value)
					if time.Since(began) >= ttl {
						require.Equal(t, aside.StatusStale, r.Status)
						require.Equal(t, "past its TTL, being refreshed", r.Reason)
					}
				}
				time.Sleep(10 * time.Millisecond) // a load that has begun ends
				synctest.Wait()
				m := c.Metrics().Labels["items"]
				require.GreaterOrEqual(t, m.RefreshErrors, uint64(3))
				require.Equal(t, m.Refreshes, m.RefreshErrors, "each of them fails")
				require.Equal(t, m.Loads, m.Refreshes+1)
				require.Equal(t, m.LoadErrors, m.RefreshErrors)
				lines := strings.Count(log.String(), "value could not be loaded anew")
				require.Contains(t, log.String(), errTxDone.Error())
				require.Contains(t, log.String(), `"policy":"items"`)
				require.Positive(t, lines)
				require.LessOrEqual(t, lines, 7, "once in ten seconds")

				time.Sleep(time.Second)
				r, err = request() // Stale has ended
				require.NoError(t, err)
				if kept {
					require.Equal(t, old, r.Value)
					require.Equal(t, aside.StatusStale, r.Status)
					require.Equal(t, "past its TTL, the load failed", r.Reason)
					require.EqualValues(t, 1, c.Metrics().Labels["items"].StaleOnError)
				} else {
					require.NotEqual(t, old, r.Value)
					require.Equal(t, aside.StatusMiss, r.Status)
				}
				requireCountersAddUp(t, c.Metrics().Labels["items"])
			})
		})
	}
}

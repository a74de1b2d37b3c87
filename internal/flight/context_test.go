package flight

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// An ender counts how often it was notified.
type ender struct{ atomic.Int64 }

func (e *ender) ContextEnded() { e.Add(1) }

// However and whenever a load's context is looked at, it is as the standard library's would be.
func TestALoadsContextIsAsTheStandardLibrarysWouldBe(t *testing.T) {
	t.Parallel()
	left := errors.New("left")
	type number int
	for _, asked := range []string{"before its end", "after its end", "never before"} {
		for how, want := range map[string][2]error{
			"not at all": {}, "its deadline": {context.DeadlineExceeded, ErrTimeout}, "cancelled": {context.Canceled, left},
			"cancelled, then its deadline": {context.Canceled, left}, "its deadline, then cancelled": {context.DeadlineExceeded, ErrTimeout},
		} {
			t.Run(how+"/asked "+asked, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					caller, leave := context.WithCancel(context.WithValue(t.Context(), number(1), "one"))
					own := new(int)
					caller = context.WithValue(caller, own, "own")
					leave() // which ends no load
					until := time.Now().Add(time.Second)
					c := &loadContext{values: caller, deadline: until}
					expiry := time.AfterFunc(time.Second, c.expire)
					defer expiry.Stop()
					defer c.cancel(errLanded)
					require.Equal(t, "one", c.Value(number(1)))
					notified, ignored, late := new(ender), new(ender), new(ender)
					c.notifyEnd(notified)
					c.notifyEnd(ignored)
					require.True(t, c.ignoreEnd(ignored))
					require.False(t, c.ignoreEnd(ignored))

					var child context.Context
					called := make(chan struct{})
					look := func() {
						var cancel context.CancelFunc
						child, cancel = context.WithCancel(c)
						t.Cleanup(cancel)
						context.AfterFunc(c, func() { close(called) })
					}
					if asked == "before its end" {
						look()
					}
					require.NoError(t, c.Err())
					require.NoError(t, c.Cause())
					switch how {
					case "its deadline":
						time.Sleep(time.Second)
					case "cancelled":
						c.cancel(left)
					case "cancelled, then its deadline":
						c.cancel(left)
						time.Sleep(time.Minute)
					case "its deadline, then cancelled":
						time.Sleep(time.Minute)
						c.cancel(left)
					}
					synctest.Wait()
					if asked == "after its end" {
						look()
						synctest.Wait()
					}
					require.Equal(t, want[0], c.Err())
					require.Equal(t, want[1], c.Cause())
					require.Equal(t, want[1], context.Cause(c))
					require.Equal(t, want[0], c.Err())
					d, ok := c.Deadline()
					require.True(t, ok)
					require.Equal(t, until, d)
					require.Equal(t, "own", c.Value(own), "a key of the kind that the standard library has")
					ended := false
					select {
					case <-c.Done():
						ended = true
					default:
					}
					require.Equal(t, want[0] != nil, ended)
					c.notifyEnd(late)
					synctest.Wait()
					times := int64(0)
					if ended {
						times = 1
					}
					require.Equal(t, times, notified.Load())
					require.Equal(t, times, late.Load())
					require.Zero(t, ignored.Load())
					require.Equal(t, !ended, c.ignoreEnd(notified))
					require.Equal(t, !ended, c.ignoreEnd(late))
					if child != nil {
						require.Equal(t, want[0], child.Err())
						require.Equal(t, want[1], context.Cause(child))
						select {
						case <-called:
							require.Error(t, want[0])
						default:
							require.NoError(t, want[0])
						}
					}
				})
			})
		}
	}
}

// A load that waits for nothing makes no context of the standard library, which would have a timer.
func TestALoadThatWaitsForNothingMakesNoContext(t *testing.T) {
	t.Parallel()
	var g group
	call := lead(t, &g, "a")[0]
	var made context.Context
	g.Run(t.Context(), time.Minute, func(ctx context.Context) {
		_, _ = ctx.Deadline()
		_ = ctx.Value("nothing")
		_ = context.WithoutCancel(ctx).Value("nothing")
		if ctx.Err() == nil {
			made = ctx.(*loadContext).made
			call.Resolve(1, nil)
		}
	}, call)
	v, err := call.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, v)
	require.Nil(t, made)
}

package flight

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// fresh joins with JoinFresh until it has a call, and reports whether it leads.
func fresh(t *testing.T, g *group, grade int) (c *call, lead bool) {
	t.Helper()
	for since := g.Ticket(); ; {
		c, lead, ended := g.JoinFresh("k", since, grade, true)
		if ended == nil {
			return c, lead
		}
		<-ended
	}
}

// Hazard 76.
func TestThoseWhoWaitForAFreshCallShareTheNextOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g group
		runs := 0
		got := make(chan int, 100)
		for range cap(got) {
			go func() {
				c, lead := fresh(t, &g, 1)
				if lead {
					g.Run(t.Context(), limit, func(context.Context) {
						runs++
						n := runs
						time.Sleep(time.Second)
						c.Resolve(n, nil)
					}, c)
				}
				n, err := c.Wait(t.Context())
				require.NoError(t, err)
				got <- n
			}()
			synctest.Wait()
		}
		first := 0
		for range cap(got) {
			if <-got == 1 {
				first++
			}
		}
		require.Equal(t, 1, first, "the others came after it began")
		require.Equal(t, 2, runs)
		synctest.Wait()
		empty(t, &g)
	})
}

func TestAFreshCallIsSharedOnlyByThoseWhoCameBeforeItBeganAndAskForNoMore(t *testing.T) {
	t.Parallel()
	var g group
	plain := lead(t, &g, "k")[0]
	before := g.Ticket()

	one, leads, _ := g.JoinFresh("k", before, 1, true)
	require.True(t, leads, "a plain call is not fresh, and not waited for")
	require.NotSame(t, plain, one)

	c, leads, _ := g.JoinFresh("k", before, 1, true)
	require.Same(t, one, c)
	require.False(t, leads)

	_, _, ended := g.JoinFresh("k", g.Ticket(), 1, true)
	require.NotNil(t, ended, "it began before")

	two, leads, _ := g.JoinFresh("k", before, 2, true)
	require.True(t, leads, "the other one is of a lower grade")
	<-ended // it is not shared any more

	c, leads, _ = g.JoinFresh("k", before, 1, true)
	require.Same(t, two, c, "a higher grade is good enough")
	require.False(t, leads)

	three, leads, _ := g.JoinFresh("k", g.Ticket(), 2, false)
	require.True(t, leads, "an impatient caller does not wait")

	c, leads = g.Join("k")
	require.Same(t, three, c)
	require.False(t, leads, "a plain caller joins whatever is there")

	lower(three)
	_, leads, _ = g.JoinFresh("k", g.Ticket(), 2, true)
	require.True(t, leads, "what is not shared any more is not waited for")
}

func TestAFreshCallThatEndsInAnyWayLetsTheNextOneBegin(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(g *group, c *call, leave func()){
		"resolved":  func(_ *group, c *call, _ func()) { c.Resolve(1, nil) },
		"forgotten": func(_ *group, c *call, _ func()) { c.Forget() },
		"abandoned": func(_ *group, _ *call, leave func()) { leave() },
		"closed":    func(g *group, _ *call, _ func()) { _ = g.Close(context.Background(), context.Canceled) },
		"timed out": func(*group, *call, func()) { time.Sleep(limit) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var g group
				c, _ := fresh(t, &g, 1)
				g.Run(t.Context(), limit, func(ctx context.Context) { <-ctx.Done() }, c)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				wait(ctx, c)
				synctest.Wait()
				_, _, ended := g.JoinFresh("k", g.Ticket(), 1, true)
				end(&g, c, leave)
				<-ended
				leave()
				_ = g.Close(context.Background(), context.Canceled)
			})
		})
	}
}

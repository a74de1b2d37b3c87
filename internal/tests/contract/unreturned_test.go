package contract_test

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// Hazard 41: loaders that ignore the end of their context keep neither the places of other policies nor, once they are over, their own key.
func TestLoadersThatNeverReturnTakeNobodysPlace(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{MaxLoads: 32, Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		stuck := aside.Policy{Name: "stuck", Category: "stuck", TTL: time.Hour, LoadTimeout: time.Second}
		well := aside.Policy{Name: "well", Category: "well", TTL: time.Hour, LoadTimeout: 10 * time.Second}
		release := make(chan struct{})
		hang := func(context.Context) (string, error) { <-release; return "late", nil }
		failed := make(chan error, 40)
		for i := range 40 {
			go func() {
				_, err := aside.GetOrLoad(t.Context(), c, stuck.Key(strconv.Itoa(i)), hang)
				failed <- err
			}()
		}
		synctest.Wait()
		began := time.Now()
		v, err := aside.GetOrLoad(t.Context(), c, well.Key("a"), asidetest.Value("v"))
		require.NoError(t, err)
		require.Equal(t, "v", v)
		require.LessOrEqual(t, time.Since(began), stuck.LoadTimeout)
		for range 40 {
			require.Error(t, <-failed)
		}
		synctest.Wait()
		m := c.Metrics().Labels["stuck"]
		require.GreaterOrEqual(t, m.Unreturned, int64(32))
		require.EqualValues(t, m.Loads, m.Unreturned)
		require.LessOrEqual(t, m.Unreturned, int64(40))

		_, err = aside.GetOrLoad(t.Context(), c, stuck.Key("another"), asidetest.Value("v"))
		asidetest.RequireCode(t, err, aside.CodeOverloaded, `of the policy "stuck" have not returned after their LoadTimeout`)
		close(release)
		synctest.Wait()
		require.Zero(t, c.Metrics().Labels["stuck"].Unreturned)
		v, err = aside.GetOrLoad(t.Context(), c, stuck.Key("another"), asidetest.Value("v"))
		require.NoError(t, err)
		require.Equal(t, "v", v)
	})
}

func TestOfAKeyNoMoreThanTwoLoadersAreLeftRunning(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		p := aside.Policy{Name: "stuck", Category: "stuck", TTL: time.Hour, LoadTimeout: time.Second}
		release := make(chan struct{})
		hang := func(context.Context) (string, error) { <-release; return "late", nil }
		for range 2 {
			_, err := aside.GetOrLoad(t.Context(), c, p.Key("a"), hang)
			asidetest.RequireCode(t, err, aside.CodeLoadTimeout)
			synctest.Wait() // callers get the error at the moment at which the loader is counted
		}
		_, err := aside.GetOrLoad(t.Context(), c, p.Key("a"), hang)
		asidetest.RequireCode(t, err, aside.CodeOverloaded, "2 loaders of this key have not returned after their LoadTimeout")
		v, err := aside.GetOrLoad(t.Context(), c, p.Key("b"), asidetest.Value("v"))
		require.NoError(t, err)
		require.Equal(t, "v", v)
		close(release)
		synctest.Wait()
		v, err = aside.GetOrLoad(t.Context(), c, p.Key("a"), asidetest.Value("v"), aside.Refresh())
		require.NoError(t, err)
		require.Equal(t, "v", v)
	})
}

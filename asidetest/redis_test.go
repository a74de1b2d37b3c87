package asidetest_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidetest"
	suite "github.com/gatewayz/aside/internal/asidetest"
)

func lookup(t *testing.T, c *aside.Cache, id int) aside.Result[string] {
	t.Helper()
	r, err := aside.Lookup(t.Context(), c, suite.Items.Key(id), func(ctx context.Context) (string, error) { return loadName(ctx, id) })
	require.NoError(t, err)
	return r
}

func TestARedisForATestKeepsValues(t *testing.T) {
	t.Parallel()
	r := asidetest.NewRedis(t)
	a := ready(t, asidetest.New(t, r.Options()))
	require.Equal(t, aside.TierOrigin, lookup(t, a, 7).Tier)
	require.NoError(t, a.Close())
	b := ready(t, asidetest.New(t, r.Options()))
	require.Equal(t, aside.TierRedis, lookup(t, b, 7).Tier)
	require.False(t, b.Health().Tracking, "the page says so")
}

func TestTheTTLsOfARedisForATestPass(t *testing.T) {
	t.Parallel()
	r := asidetest.NewRedis(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{r.Addr()}, DisableCache: true})
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.Do(t.Context(), client.B().Set().Key("{k}brief").Value("v").PxMilliseconds(300).Build()).Error())
	require.NoError(t, client.Do(t.Context(), client.B().Set().Key("{k}long").Value("v").ExSeconds(600).Build()).Error())
	suite.Eventually(t, "the key is gone", func() bool {
		n, err := client.Do(t.Context(), client.B().Exists().Key("{k}brief", "{k}long").Build()).AsInt64()
		require.NoError(t, err)
		return n == 1
	})
	left, err := client.Do(t.Context(), client.B().Pttl().Key("{k}long").Build()).AsInt64()
	require.NoError(t, err)
	require.Greater(t, left, int64(400_000), "its time passes as fast as that of the test")
}

func TestARedisThatIsDown(t *testing.T) {
	t.Parallel()
	r := asidetest.NewRedis(t)
	c := ready(t, asidetest.New(t, r.Options()))
	lookup(t, c, 7)
	asidetest.Settled(t, c)

	r.Down()
	suite.Eventually(t, "the outage is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	require.Equal(t, aside.StatusFallback, lookup(t, c, 8).Status)
	late := asidetest.New(t, r.Options())
	require.Equal(t, aside.StatusFallback, lookup(t, late, 9).Status, "new connections fail too")

	r.Up()
	ready(t, c)
	ready(t, late)
	require.Equal(t, aside.TierRedis, lookup(t, late, 7).Tier, "the server has kept its values")
}

func TestARedisThatIsDownFromTheStart(t *testing.T) {
	t.Parallel()
	r := asidetest.NewRedis(t)
	r.Down()
	c := asidetest.New(t, r.Options())
	require.Equal(t, aside.StatusFallback, lookup(t, c, 7).Status)
	r.Up()
	ready(t, c)
}

func TestARedisThatHangs(t *testing.T) {
	t.Parallel()
	r := asidetest.NewRedis(t)
	o := r.Options()
	o.OpTimeout = 50 * time.Millisecond
	c := ready(t, asidetest.New(t, o))
	r.Hang()
	began := time.Now()
	require.Equal(t, aside.StatusFallback, lookup(t, c, 7).Status)
	require.GreaterOrEqual(t, time.Since(began), o.OpTimeout, "nothing has refused the call")
	suite.Eventually(t, "the outage is noticed", func() bool {
		_, _ = aside.Get[string](t.Context(), c, suite.Items.Key(8))
		return c.Health().State == aside.StateDegraded
	})
	r.Up()
	ready(t, c)
}

func TestARedisThatIsSlow(t *testing.T) {
	t.Parallel()
	const delay = 200 * time.Millisecond
	r := asidetest.NewRedis(t)
	c := ready(t, asidetest.New(t, r.Options()))
	r.Slow(delay)
	began := time.Now()
	require.NoError(t, aside.Set(t.Context(), c, suite.Items.Key(7), "set"))
	require.GreaterOrEqual(t, time.Since(began), delay)
	require.Equal(t, aside.StateConnected, c.Health().State)
	r.Up()
	suite.Repeatedly(t, "an answer is not delayed any more", func() bool {
		began := time.Now()
		require.NoError(t, aside.Set(t.Context(), c, suite.Items.Key(7), "set"))
		return time.Since(began) < delay
	})
}

// Clients that ask whether the server is part of a cluster do not get past what fails on request.
func TestARedisForATestIsNoCluster(t *testing.T) {
	t.Parallel()
	r := asidetest.NewRedis(t)
	o := r.Options()
	o.Redis.ForceSingleClient = false
	c := ready(t, asidetest.New(t, o))
	require.Equal(t, aside.TierOrigin, lookup(t, c, 7).Tier)
	r.Down()
	suite.Eventually(t, "the outage is noticed", func() bool { return c.Health().State == aside.StateDegraded })
	r.Up()
	ready(t, c)
}

// What was kept back by Slow or Hang is passed on when these end.
func TestWhatARedisHasKeptBackArrivesWhenItIsUp(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*asidetest.Redis){
		"slow":    func(r *asidetest.Redis) { r.Slow(time.Hour) },
		"hanging": (*asidetest.Redis).Hang,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := asidetest.NewRedis(t)
			client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{r.Addr()}, DisableCache: true, ConnWriteTimeout: suite.Bound})
			require.NoError(t, err)
			defer client.Close()
			begin(r)
			answered := make(chan error, 1)
			go func() {
				answered <- client.Do(context.Background(), client.B().Set().Key("k").Value("v").Build()).Error()
			}()
			select {
			case err := <-answered:
				t.Fatal("there was an answer: ", err)
			case <-time.After(100 * time.Millisecond): // an answer in this time would be one too early
			}
			r.Up()
			require.NoError(t, <-answered)
		})
	}
}

// A large value is passed on in many pieces, in their order.
func TestARedisPassesOnLargeValues(t *testing.T) {
	t.Parallel()
	r := asidetest.NewRedis(t)
	large := string(suite.Large(3 << 20))
	a, b := ready(t, asidetest.New(t, r.Options())), ready(t, asidetest.New(t, r.Options()))
	r.Slow(time.Millisecond)
	require.NoError(t, aside.Set(t.Context(), a, suite.Items.Key("large"), []byte(large)))
	got, err := aside.Get[[]byte](t.Context(), b, suite.Items.Key("large"))
	require.NoError(t, err)
	require.True(t, large == string(got))
}

package asidetest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// AsUser is whether the whole suite is run as a user with the ACL rules of docs/redis.md, and no others; its password is a canary.
var AsUser = os.Getenv("ASIDE_ACL") == "1"

// InCluster is whether the whole suite is run on Redis Clusters of one node each.
var InCluster = os.Getenv("ASIDE_CLUSTER") == "1"

// Items is what most tests cache: one second is long enough for any of them, and short enough to wait for.
var Items = aside.Policy{Name: "items", Category: "items", TTL: time.Hour}

// Bound is how long a test waits for what must happen: far longer than it takes, as a busy machine may stand still for seconds. Mutants, for
// which it never does, are given less.
var Bound = waitBound()

func waitBound() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("ASIDE_TEST_BOUND")); err == nil {
		return d
	}
	return time.Minute
}

func Quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// NewCache makes a cache that ends with its test. What it has logged, where the test does not look for itself, and what it
// prints must hold no canary.
func NewCache(t testing.TB, o aside.Options) *aside.Cache {
	t.Helper()
	var log Logbook
	if o.Logger == nil {
		o.Logger = log.Logger()
	}
	if o.Backoff == 0 {
		o.Backoff = -1 // most tests repeat a failed load at once
	}
	if AsUser && len(o.Redis.InitAddress) > 0 && o.Secret.Reveal() == "" {
		o.Secret = aside.NewSecret(Canary)
	}
	c, err := aside.New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		metrics, health := c.Metrics(), c.Health()
		c.Close()
		text := fmt.Sprintf("%s\n%v %+v %#v\n%+v\n%+v\n%+v", log.String(), c, o, c, health, metrics, c.Recent())
		if form, found := CanaryIn(text); found {
			t.Errorf("the canary was told as %s: %s", form, text)
		}
	})
	return c
}

// At is the options for a cache on the server at addr. Its limits for one operation and for a silent connection are long:
// tests that are not about time must not fail for want of it.
func At(addr string) aside.Options {
	o := Anonymously(addr)
	if AsUser {
		o.Redis.Username, o.Redis.Password = "aside", Canary
	}
	return o
}

// Anonymously is at for a server's default user, for tests that are about users and passwords.
func Anonymously(addr string) aside.Options {
	o := aside.Options{
		Redis:     rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: !InCluster, ConnWriteTimeout: 2500 * time.Millisecond},
		OpTimeout: 5 * time.Second,
	}
	o.Redis.Dialer.KeepAlive = 250 * time.Millisecond // with which so long a ConnWriteTimeout is allowed
	return o
}

// Mini is the address of a miniredis.
func Mini(t *testing.T) string {
	server := miniredis.RunT(t)
	if AsUser {
		server.RequireUserAuth("aside", Canary)
	}
	return server.Addr()
}

// Connected makes a cache on the server at addr and waits until it is in use.
func Connected(t testing.TB, o aside.Options) *aside.Cache {
	t.Helper()
	c := NewCache(t, o)
	Eventually(t, "the cache connects", func() bool { return c.Health().State == aside.StateConnected })
	return c
}

// Eventually waits for a condition.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, Bound, time.Millisecond, what)
}

// Repeatedly tries until a try succeeds. It is for what a busy machine may prevent: a try has times that cannot be made longer, or the
// scheduler has to let an interleaving happen. A try shares nothing with the one before.
func Repeatedly(t testing.TB, what string, try func() bool) {
	t.Helper()
	for mayTake := time.Now().Add(3 * Bound); !try(); {
		require.True(t, time.Now().Before(mayTake), "no try has succeeded: %s", what)
	}
}

// EveryMode runs a test in memory, on miniredis and on a real server: what it states holds wherever values are kept. The suites that are about the servers, as
// the documented user and on clusters, run it on these alone.
func EveryMode(t *testing.T, test func(t *testing.T, newCache func(aside.Options) *aside.Cache)) {
	on := func(addr func(t *testing.T) string) func(t *testing.T) {
		return func(t *testing.T) {
			t.Parallel()
			a := addr(t)
			test(t, func(o aside.Options) *aside.Cache {
				if a == "" {
					return NewCache(t, o)
				}
				o.Redis, o.OpTimeout = At(a).Redis, At(a).OpTimeout
				return Connected(t, o)
			})
		}
	}
	if !AsUser && !InCluster {
		t.Run("memory", on(func(*testing.T) string { return "" }))
		t.Run("miniredis", on(Mini))
	}
	t.Run("redis", on(func(t *testing.T) string { return redistest.Start(t).Addr() }))
}

// IsHead reports whether a request reads only the head of the value of a key: the look by which a fill ends.
func IsHead(args []string, key string) bool {
	return args[0] == "GETRANGE" && args[1] == key && args[3] == "63"
}

// A Source is where loaders load from. It counts.
type Source struct{ Loads atomic.Int64 }

func (s *Source) Load(value string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		s.Loads.Add(1)
		return value, nil
	}
}

func getenv(name string) string {
	v := os.Getenv(name)
	if v == "" {
		panic(name + " is not set")
	}
	return v
}

// ConnectionRefused is what Health says where nothing listens.
const ConnectionRefused = "redis cannot be reached: nothing listens at its address (connection refused)"

// Pushes is how many changes Redis has told a cache of, those of its own last changes included.
func Pushes(t *testing.T, c *aside.Cache) uint64 {
	t.Helper()
	AllTold(t, c)
	return c.Metrics().InvalidationMessages
}

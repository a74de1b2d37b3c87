package aside_test

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
	"go.uber.org/goleak"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.MaybeSubprocess(map[string]func(){
		"reader":   readerProcess,
		"holder":   holderProcess,
		"member":   memberProcess,
		"follower": followerProcess,
		"servant":  servantProcess,
		"plain":    plainProcess,
		"brief":    briefProcess,
		"herd":     herdProcess,
		"stranger": strangerProcess,
	})
	if asUser {
		redistest.User = append(append([]string{"aside"}, aclRules(canary, allCategories()...)...), "+asking", "+wait") // the last two for clusters and replicas
	}
	redistest.Alone = inCluster
	goleak.VerifyTestMain(m)
}

// asUser is whether the whole suite is run as a user that may do what the README says, and no more; its password is a canary.
var asUser = os.Getenv("ASIDE_ACL") == "1"

// inCluster is whether the whole suite is run on Redis Clusters of one node each.
var inCluster = os.Getenv("ASIDE_CLUSTER") == "1"

// items is what most tests cache: one second is long enough for any of them, and short enough to wait for.
var items = aside.Policy{Name: "items", Category: "items", TTL: time.Hour}

// bound is how long a test waits for what must happen. Mutants, for which it never does, are given less.
var bound = waitBound()

func waitBound() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("ASIDE_TEST_BOUND")); err == nil {
		return d
	}
	return 20 * time.Second
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// newCache makes a cache that ends with its test. What it has logged, where the test does not look for itself, and what it
// prints must hold no canary.
func newCache(t testing.TB, o aside.Options) *aside.Cache {
	t.Helper()
	var log logbook
	if o.Logger == nil {
		o.Logger = log.logger()
	}
	if o.Backoff == 0 {
		o.Backoff = -1 // most tests repeat a failed load at once
	}
	if asUser && len(o.Redis.InitAddress) > 0 && o.Secret.Reveal() == "" {
		o.Secret = aside.NewSecret(canary)
	}
	c, err := aside.New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		metrics, health := c.Metrics(), c.Health()
		c.Close()
		text := fmt.Sprintf("%s\n%v %+v %#v\n%+v\n%+v", log.String(), c, o, c, health, metrics)
		if form, found := canaryIn(text); found {
			t.Errorf("the canary was told as %s: %s", form, text)
		}
	})
	return c
}

// at is the options for a cache on the server at addr. Its limits for one operation and for a silent connection are long:
// tests that are not about time must not fail for want of it.
func at(addr string) aside.Options {
	o := anonymously(addr)
	if asUser {
		o.Redis.Username, o.Redis.Password = "aside", canary
	}
	return o
}

// anonymously is at for a server's default user, for tests that are about users and passwords.
func anonymously(addr string) aside.Options {
	o := aside.Options{
		Redis:     rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: !inCluster, ConnWriteTimeout: 2500 * time.Millisecond},
		OpTimeout: 5 * time.Second,
	}
	o.Redis.Dialer.KeepAlive = 250 * time.Millisecond // with which so long a ConnWriteTimeout is allowed
	return o
}

// mini is the address of a miniredis.
func mini(t *testing.T) string {
	server := miniredis.RunT(t)
	if asUser {
		server.RequireUserAuth("aside", canary)
	}
	return server.Addr()
}

// connected makes a cache on the server at addr and waits until it is in use.
func connected(t testing.TB, o aside.Options) *aside.Cache {
	t.Helper()
	c := newCache(t, o)
	eventually(t, "the cache connects", func() bool { return c.Health().State == aside.StateConnected })
	return c
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, bound, time.Millisecond, what)
}

// everyMode runs a test in memory, on miniredis and on a real server: what it states holds wherever values are kept.
func everyMode(t *testing.T, test func(t *testing.T, newCache func(aside.Options) *aside.Cache)) {
	on := func(addr func(t *testing.T) string) func(t *testing.T) {
		return func(t *testing.T) {
			t.Parallel()
			a := addr(t)
			test(t, func(o aside.Options) *aside.Cache {
				if a == "" {
					return newCache(t, o)
				}
				o.Redis, o.OpTimeout = at(a).Redis, at(a).OpTimeout
				return connected(t, o)
			})
		}
	}
	t.Run("memory", on(func(*testing.T) string { return "" }))
	t.Run("miniredis", on(mini))
	t.Run("redis", on(func(t *testing.T) string { return redistest.Start(t).Addr() }))
}

// isHead reports whether a request reads only the head of the value of a key: the look by which a fill ends.
func isHead(args []string, key string) bool {
	return args[0] == "GETRANGE" && args[1] == key && args[3] == "63"
}

// A source is where loaders load from. It counts.
type source struct{ loads atomic.Int64 }

func (s *source) load(value string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		s.loads.Add(1)
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

// connectionRefused is what Health says where nothing listens.
const connectionRefused = "redis cannot be reached: nothing listens at its address (connection refused)"

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

// What a verb works on.
const (
	onRedis = "redis"
	onAPI   = "api"
	onBoth  = "redis or api"
)

// opTimeout bounds one operation on Redis: a person waits, and not a request.
const opTimeout = 5 * time.Second

// maxValue bounds a value that is read: the largest MaxValueBytes.
const maxValue = 1 << 30

// A connection is how to reach what a verb works on.
type connection struct {
	redis, namespace string
	timeout          time.Duration
}

func (c *connection) register(flags *flag.FlagSet, where string) {
	if where == onRedis || where == onBoth {
		flags.StringVar(&c.redis, "redis", "", "`URL` of the Redis, without a password; in place of the environment")
		flags.StringVar(&c.namespace, "namespace", "", "`NAME` in Options.Namespace of the program")
	}
	if where != "" {
		flags.DurationVar(&c.timeout, "timeout", 5*time.Second, "wait for a connection for a `DURATION`")
	}
}

// options are those of a cache on the Redis.
func (c *connection) options() (aside.Options, error) {
	if c.redis != "" {
		if u, err := url.Parse(c.redis); err != nil || u.User != nil || strings.Contains(c.redis, "@") {
			return aside.Options{}, usage("-redis has a user name or a password, or cannot be parsed: everybody on this machine can see a command line; " +
				"set REDIS_URL, or REDIS_HOST, REDIS_USERNAME and REDIS_PASSWORD")
		}
		for _, name := range []string{"REDIS_HOST", "REDIS_PORT", "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_DB", "REDIS_TLS"} {
			os.Unsetenv(name)
		}
		os.Setenv("REDIS_URL", c.redis)
	}
	o, err := aside.OptionsFromEnv()
	switch {
	case err != nil && c.redis != "":
		return o, usage("%s", strings.NewReplacer("REDIS_URL", "-redis", "user:password@", "").Replace(err.Error()))
	case err != nil:
		return o, usage("%v", err)
	case len(o.Redis.InitAddress) == 0:
		return o, usage("there is no Redis: set REDIS_URL or REDIS_HOST, or give -redis redis://HOST:PORT")
	}
	o.Namespace, o.OpTimeout, o.Logger = c.namespace, opTimeout, slog.New(slog.DiscardHandler)
	return o, nil
}

// prefix is that of all names in Redis.
func (c *connection) prefix() string {
	if c.namespace == "" {
		return ""
	}
	return c.namespace + "%:"
}

// cache opens a cache with policies of these categories, and waits until it has a connection.
func (c *connection) cache(ctx context.Context, categories ...string) (*aside.Cache, error) {
	o, err := c.options()
	if err != nil {
		return nil, err
	}
	for _, name := range categories {
		o.Policies = append(o.Policies, policyOf(name))
	}
	cache, err := aside.New(o)
	if err != nil {
		return nil, usage("%v", err)
	}
	if err := c.await(ctx, func() (bool, string) {
		h := cache.Health()
		if h.Reason == connecting {
			h.Reason = ""
		}
		return h.State == aside.StateConnected, h.Reason
	}); err != nil {
		cache.Close()
		return nil, err
	}
	return cache, nil
}

// connecting is the reason of a cache that makes its first attempt.
const connecting = "connecting to redis"

// policyOf is a policy whose keys are those of a category. Nothing is loaded by it.
func policyOf(category string) aside.Policy {
	return aside.Policy{Name: category, Category: category, TTL: time.Hour}
}

// store opens the store, and waits until it has a connection.
func (c *connection) store(ctx context.Context) (*redisstore.Store, error) {
	o, err := c.options()
	if err != nil {
		return nil, err
	}
	// A cache examines the options as a program's does.
	probe, err := aside.New(aside.Options{Namespace: o.Namespace, Logger: o.Logger})
	if err != nil {
		return nil, usage("%v", err)
	}
	probe.Close()
	s := redisstore.Open(redisstore.Options{
		Client: o.Redis, Namespace: c.prefix(), OpTimeout: opTimeout, Lease: opTimeout,
		Format: redisstore.Format{Longest: maxValue + wire.MaxOverhead},
	})
	if err := c.await(ctx, func() (bool, string) {
		state := s.State()
		if state.Cause == nil {
			return state.Up, ""
		}
		return state.Up, redisstore.Describe(state.Cause)
	}); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// patience is how long to wait for another attempt to connect, once one has failed.
const patience = time.Second

// await waits for a connection. reason is empty while the first attempt is being made.
func (c *connection) await(ctx context.Context, state func() (up bool, reason string)) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var failed time.Time
	for {
		up, reason := state()
		if up {
			return nil
		}
		if reason != "" && failed.IsZero() {
			failed = time.Now()
		}
		if ctx.Err() != nil || reason != "" && time.Since(failed) > patience {
			return errors.New(cmp.Or(reason, "redis did not answer in time"))
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

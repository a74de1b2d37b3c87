package aside_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// A server that is some milliseconds away, and well. A program that asks once, with the defaults, reads what is there and stores what it loads.
// The proxy delays what is said on a connection, not the making of it: a real way is longer, and TLS makes it longer still.
func TestAProgramThatAsksOnceUsesARedisThatIsSomeMillisecondsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	proxy.SetDelay(4 * time.Millisecond) // there, and back again
	seed := connected(t, at(server.Addr()))
	require.NoError(t, aside.Set(t.Context(), seed, items.Key("there"), "stored"))
	ask := func(key string) aside.Result[string] {
		c := newCache(t, aside.Options{Redis: rueidis.ClientOption{InitAddress: []string{proxy.Addr()}}})
		r, err := aside.Lookup(t.Context(), c, items.Key(key), value("loaded"))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		return r
	}
	const programs = 5
	hits, stored := 0, 0
	for i := range programs {
		if ask("there").Status == aside.StatusHit {
			hits++
		}
		key := string(rune('a' + i))
		ask(key)
		if v, err := aside.Get[string](t.Context(), seed, items.Key(key)); err == nil && v == "loaded" {
			stored++
		}
	}
	t.Logf("%d of %d first calls were hits, %d of %d values were stored", hits, programs, stored, programs)
	require.NotZero(t, hits)
	require.NotZero(t, stored)
}

// Callers wait for the first connection.
//
//  1. Some of them have waited for nearly all of their time when it is there.
//  2. They ask Redis, which answers as fast as ever, and have no time left to hear it.
//  3. That is no failure of the server: nobody is kept from it.
func TestThoseWhoHaveWaitedForTheFirstConnectionAreNoFailuresOfTheServer(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	proxy.SetDelay(20 * time.Millisecond)
	gate := proxy.HoldReplies(func(args []string) bool { return args[0] == "GET" }) // what a connection is examined by last
	var log logbook
	o := at(proxy.Addr())
	o.OpTimeout, o.Logger = 400*time.Millisecond, log.logger()
	c := newCache(t, o)
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			all.Go(func() { _, _ = aside.Lookup(t.Context(), c, items.Key(i), value("v")) })
		}
	})
	gate.Wait(t)
	<-time.After(2 * o.OpTimeout)
	gate.Release()
	eventually(t, "the cache connects", func() bool { return c.Health().State == aside.StateConnected })
	<-time.After(o.OpTimeout)
	close(stop)
	all.Wait()
	require.NotContains(t, log.String(), "redis is away")
}

// A Get returns by its own context, also where it has waited for the first connection.
//
//  1. It comes while the connection is being made, and waits.
//  2. There is a connection; Redis is asked, and does not answer yet.
//  3. The caller's context ends.
func TestAGetThatHasWaitedForTheFirstConnectionHeedsItsContext(t *testing.T) {
	t.Parallel()
	for name, early := range map[string]bool{"while it is being made": true, "afterwards": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
			connecting := proxy.HoldReplies(func(args []string) bool { return args[0] == "TIME" })
			reading := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" && args[1] == "items:a" })
			o := at(proxy.Addr())
			o.Redis.ConnWriteTimeout = 2500 * time.Millisecond
			c := newCache(t, o)
			connecting.Wait(t)
			if !early {
				connecting.Release()
				eventually(t, "the cache connects", func() bool { return c.Health().State == aside.StateConnected })
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			got := make(chan error, 1)
			go func() {
				_, err := aside.Get[string](ctx, c, items.Key("a"))
				got <- err
			}()
			if early {
				<-time.After(100 * time.Millisecond) // it waits for the connection
				connecting.Release()
			}
			reading.Wait(t)
			cancel()
			select {
			case err := <-got:
				require.ErrorIs(t, err, context.Canceled)
			case <-time.After(time.Second):
				t.Error("it waits on")
				reading.Release()
				<-got
			}
			reading.Release()
		})
	}
}

// A dialer of the program's own that never returns is not called again and again: each call keeps a goroutine for ever.
func TestADialerThatHangsIsNotCalledWithoutEnd(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(o *aside.Options, hang func()){
		"DialCtxFn": func(o *aside.Options, hang func()) {
			o.Redis.DialCtxFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
				hang()
				return nil, errors.New("at last")
			}
		},
		"DialFn": func(o *aside.Options, hang func()) {
			o.Redis.DialFn = func(string, *net.Dialer, *tls.Config) (net.Conn, error) {
				hang()
				return nil, errors.New("at last")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := at("192.0.2.1:6379")
			o.Redis.Dialer.Timeout = 10 * time.Millisecond
			over := make(chan struct{})
			defer close(over)
			var hanging atomic.Int64
			set(&o, func() { hanging.Add(1); <-over })
			newCache(t, o)
			<-time.After(10 * time.Second)
			t.Logf("%d calls hang after ten seconds", hanging.Load())
			require.LessOrEqual(t, hanging.Load(), int64(4))
		})
	}
}

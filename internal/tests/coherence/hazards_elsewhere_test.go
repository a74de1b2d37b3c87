package coherence_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// The tests of this file are about changes that are made elsewhere, and confirmed, and that a process must not miss.

// reads returns a match for reads of a key.
func reads(key string) func(args []string) bool {
	return func(args []string) bool {
		return len(args) > 1 && (strings.EqualFold(args[0], "GET") || strings.EqualFold(args[0], "GETRANGE")) && args[1] == key
	}
}

// optsIn reports whether a command has the server remember the read behind it.
func optsIn(args []string) bool {
	return len(args) > 1 && strings.EqualFold(args[0], "CLIENT") && strings.EqualFold(args[1], "CACHING")
}

// awaitReads waits until n reads of a key have gone to the server.
func awaitReads(t *testing.T, p *redistest.Proxy, key string, n int) {
	t.Helper()
	p.Await(t, "the server is asked for "+key, func() bool {
		found := 0
		for _, args := range p.Log() {
			if reads(key)(args) {
				found++
			}
		}
		return found == n
	})
}

// changedElsewhere has a invalidate a key, which Redis must confirm.
func changedElsewhere(t *testing.T, a *aside.Cache, key aside.Key) {
	t.Helper()
	receipt, err := a.Invalidate(t.Context(), key)
	require.NoError(t, err)
	require.True(t, receipt.Confirmed)
}

// Hazard 51: two reads of one key are under way, and one of them is given up.
//
//  1. A batch of three portions reads the key in the first one. The reply, with the old value, is on its way.
//  2. A second read of the key is sent, and its caller leaves.
//  3. Another process changes the key. The push is behind both replies.
//  4. The replies and the push arrive. The batch has two portions to go.
//  5. A third read of the key is sent and answered, with what is new.
//  6. The batch ends. Its value is older than the push.
func TestHazard51AReadIsNotTakenForAnotherOneOfItsKey(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, a *aside.Cache, key aside.Key){
		"invalidated": changedElsewhere,
		"set": func(t *testing.T, a *aside.Cache, key aside.Key) {
			asidetest.Stored(t, a, key, "new")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server)
			key := asidetest.Items.Key("k")
			asidetest.Stored(t, a, key, "old")
			ids := []string{"k"}
			for i := range 2500 {
				ids = append(ids, "other"+strconv.Itoa(i))
			}
			first := b.Proxy.HoldReplies(reads("items:k"))
			second := b.Proxy.HoldReplies(reads("items:other1500"))
			third := b.Proxy.HoldReplies(reads("items:other2300"))
			batch := make(chan string, 1)
			go func() {
				values, err := aside.GetOrLoadMany(t.Context(), b.Cache, ids, func(id string) aside.Key { return asidetest.Items.Key(id) },
					func(_ context.Context, ids []string) (map[string]string, error) {
						values := make(map[string]string, len(ids))
						for _, id := range ids {
							values[id] = "loaded"
						}
						return values, nil
					})
				if err != nil {
					values = map[string]string{"k": err.Error()}
				}
				batch <- values["k"]
			}()
			first.Wait(t)

			hasty, leave := context.WithCancel(t.Context())
			left := make(chan error, 1)
			go func() {
				_, err := aside.Get[string](hasty, b.Cache, key)
				left <- err
			}()
			awaitReads(t, b.Proxy, "items:k", 2)
			leave()
			require.ErrorIs(t, <-left, context.Canceled)

			change(t, a, key)
			first.Release()
			second.Wait(t)
			again := make(chan error, 1)
			go func() {
				v, err := aside.Get[string](t.Context(), b.Cache, key)
				if err == nil && v != "new" {
					err = aside.ErrNotFound
				}
				again <- err
			}()
			awaitReads(t, b.Proxy, "items:k", 3)
			second.Release()
			if name == "set" {
				require.NoError(t, <-again)
			} else {
				require.ErrorIs(t, <-again, aside.ErrMiss)
			}
			third.Wait(t)
			third.Release()
			require.Equal(t, "old", <-batch, "it was waiting")

			v, err := aside.GetOrLoad(t.Context(), b.Cache, key, asidetest.Value("new"))
			require.NoError(t, err)
			require.Equal(t, "new", v)
		})
	}
}

// Hazard 52: the server refuses to remember what a client reads, and answers the read all the same.
func TestHazard52AReadThatTheServerDoesNotRememberIsNotVouchedFor(t *testing.T) {
	t.Parallel()
	// follows reads a key, has it changed elsewhere, and reads it again.
	follows := func(t *testing.T, a *aside.Cache, b *aside.Cache, read func(load func(context.Context) (string, error)) string) {
		t.Helper()
		require.Equal(t, "old", read(asidetest.Value("old")))
		changedElsewhere(t, a, asidetest.Items.Key("a"))
		asidetest.AllTold(t, b)
		require.Equal(t, "new", read(asidetest.Value("new")))
	}
	get := func(t *testing.T, c *aside.Cache) func(load func(context.Context) (string, error)) string {
		return func(load func(context.Context) (string, error)) string {
			v, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), load)
			require.NoError(t, err)
			return v
		}
	}
	t.Run("the permission is taken away", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		server.MustDo(t, "ACL", "SETUSER", "member", "on", ">"+asidetest.Canary, "~*", "&*", "+@all")
		o := asidetest.Anonymously(server.Addr())
		o.Redis.Username, o.Redis.Password = "member", asidetest.Canary
		a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, o)
		asidetest.InMemory(t, b, asidetest.Items.Key("other"), asidetest.Value("v")) // so that b knows the generations
		asidetest.Stored(t, a, asidetest.Items.Key("a"), "old")
		server.MustDo(t, "ACL", "SETUSER", "member", "-client|caching")
		follows(t, a, b, get(t, b))
	})
	t.Run("a script keeps the server busy", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server)
		asidetest.InMemory(t, b.Cache, asidetest.Items.Key("other"), asidetest.Value("v"))
		asidetest.Stored(t, a, asidetest.Items.Key("a"), "old")

		server.MustDo(t, "CONFIG", "SET", "lua-time-limit", "1")
		foreign := redistest.Raw(t, server.Addr())
		foreign.Timeout = time.Minute
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, _ = foreign.Do("EVAL", "while true do end", "0")
		}()
		asidetest.Eventually(t, "the server is busy", func() bool {
			_, err := server.Do("PING")
			return err != nil && strings.HasPrefix(err.Error(), "BUSY")
		})
		// The two commands travel apart.
		optIn, read := b.Proxy.HoldRequests(optsIn), b.Proxy.HoldRequests(reads("items:a"))
		refused := b.Proxy.HoldReplies(optsIn)
		first := asidetest.Waiting(t, b.Cache, asidetest.Items.Key("a"), asidetest.Value("old"))
		read.Wait(t)
		if optIn.Held() > 0 {
			optIn.Release()
			refused.Wait(t)
		}
		optIn.Release()
		refused.Release()
		_, _ = server.Do("SCRIPT", "KILL") // it has no answer to it at times: the script may be over before
		<-over
		read.Release()
		require.Equal(t, "old", <-first)
		asidetest.Eventually(t, "it is in use again", func() bool { return b.Health().State == aside.StateConnected })
		follows(t, a, b.Cache, func() func(load func(context.Context) (string, error)) string {
			once := true
			return func(load func(context.Context) (string, error)) string {
				if once {
					once = false
					return "old" // by the read above
				}
				return get(t, b.Cache)(load)
			}
		}())
	})
}

// Hazard 53: the server has neither a value nor a lease of the key, and no memory for either.
func TestHazard53AnInvalidationIsHeardThoughThereWasNothingToRemove(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.At(server.Addr())
	o.DegradedTTL = time.Minute
	a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, o)
	asidetest.InMemory(t, b, asidetest.Items.Key("other"), asidetest.Value("v"))
	asidetest.InMemory(t, a, asidetest.Items.Key("other"), asidetest.Value("v"))
	server.MustDo(t, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	v, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value("old"))
	require.NoError(t, err)
	require.Equal(t, "old", v)
	require.Zero(t, server.MustDo(t, "EXISTS", "items:a", "{items:a}!l"))
	require.Equal(t, aside.StateConnected, b.Health().State)

	changedElsewhere(t, a, asidetest.Items.Key("a"))
	asidetest.AllTold(t, b)
	v, err = aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value("new"))
	require.NoError(t, err)
	require.Equal(t, "new", v, "it is connected, and Redis has confirmed")
}

// Hazard 53: the same while a load without a lease runs.
func TestHazard53ALoadWithoutALeaseIsNotJoinedAfterAnInvalidationElsewhere(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Pair(t, server.Addr())
	asidetest.InMemory(t, b, asidetest.Items.Key("other"), asidetest.Value("v"))
	asidetest.InMemory(t, a, asidetest.Items.Key("other"), asidetest.Value("v"))
	server.MustDo(t, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	old, fresh := asidetest.NewHeld(), asidetest.NewHeld()
	close(fresh.Release)
	first := asidetest.Waiting(t, b, asidetest.Items.Key("a"), old.Load("old"))
	<-old.Began
	require.Zero(t, server.MustDo(t, "EXISTS", "items:a", "{items:a}!l"))

	changedElsewhere(t, a, asidetest.Items.Key("a"))
	asidetest.AllTold(t, b)
	second := asidetest.Waiting(t, b, asidetest.Items.Key("a"), fresh.Load("new"))
	close(old.Release)
	require.Equal(t, "old", <-first, "it was waiting")
	require.Equal(t, "new", <-second)
}

// Hazard 54: the lease of a load is lost, so an invalidation finds neither it nor a value, and tells nobody.
func TestHazard54ALoadThatHasLostItsLeaseIsNotJoinedAfterAnInvalidationElsewhere(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Pair(t, server.Addr())
	asidetest.InMemory(t, b, asidetest.Items.Key("other"), asidetest.Value("v"))
	old, fresh := asidetest.NewHeld(), asidetest.NewHeld()
	close(fresh.Release)
	first := asidetest.Waiting(t, b, asidetest.Items.Key("a"), old.Load("old"))
	<-old.Began
	require.EqualValues(t, 1, server.MustDo(t, "DEL", "{items:a}!l"))

	changedElsewhere(t, a, asidetest.Items.Key("a"))
	asidetest.AllTold(t, b)
	second := asidetest.Waiting(t, b, asidetest.Items.Key("a"), fresh.Load("new"))
	close(old.Release)
	require.Equal(t, "old", <-first, "it was waiting")
	require.Equal(t, "new", <-second)
}

// Hazard 55: a load begins while Redis is away, and is still running when it is back and an invalidation elsewhere is confirmed.
func TestHazard55ALoadThatOutlivesAnOutageIsNotJoinedAfterAnInvalidationElsewhere(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *aside.Cache) (aside.Receipt, error){
		"key": func(c *aside.Cache) (aside.Receipt, error) {
			return c.Invalidate(t.Context(), asidetest.Items.Key("a"))
		},
		"category": func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateCategory(t.Context(), "items") },
		"tag":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateTags(t.Context(), "x") },
		"all":      func(c *aside.Cache) (aside.Receipt, error) { return c.InvalidateAll(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			a, b := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Watch(t, server)
			tags := aside.WithTags("x")
			asidetest.InMemory(t, b.Cache, asidetest.Items.Key("other"), asidetest.Value("v"), tags)
			b.Proxy.Refuse(true)
			b.Proxy.CloseConnections()
			asidetest.Eventually(t, "it is degraded", func() bool { return b.Health().State != aside.StateConnected })
			old, fresh := asidetest.NewHeld(), asidetest.NewHeld()
			close(fresh.Release)
			first := asidetest.Waiting(t, b.Cache, asidetest.Items.Key("a"), old.Load("old"), tags)
			<-old.Began
			b.Proxy.Refuse(false)
			asidetest.Eventually(t, "it is connected again", func() bool { return b.Health().State == aside.StateConnected })

			receipt, err := change(a)
			require.NoError(t, err)
			require.True(t, receipt.Confirmed)
			asidetest.AllTold(t, b.Cache)
			second := asidetest.Waiting(t, b.Cache, asidetest.Items.Key("a"), fresh.Load("new"), tags)
			close(old.Release)
			require.Equal(t, "old", <-first, "it was waiting")
			require.Equal(t, "new", <-second)
		})
	}
}

// Hazard 56: the databases are swapped, and swapped back.
//
//  1. The databases are swapped, which is noticed. What is invalidated now is confirmed by the other one.
//  2. They are swapped back. The old value is there again.
//  3. Before that is noticed, the next invalidation is confirmed, and how many there were is written down: in the database that does
//     not know of the last but one.
//  4. It is noticed. The database seems to know of all of them.
func TestHazard56WhatTheOtherDatabaseHasConfirmedIsSentAgain(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("there is one database there")
	}
	server := redistest.Start(t)
	a := asidetest.Connected(t, asidetest.At(server.Addr()))
	only := func(pattern, command string) any {
		names := server.MustDo(t, "KEYS", pattern).([]any)
		if len(names) == 0 {
			return nil
		}
		return server.MustDo(t, command, names[0].(string))
	}
	confirmed := func(id string) {
		receipt, err := a.Invalidate(t.Context(), asidetest.Items.Key(id))
		require.NoError(t, err)
		require.True(t, receipt.Confirmed)
	}
	noticed := func(gaps uint64) {
		asidetest.Eventually(t, "it is noticed", func() bool { return a.Metrics().TrackingLost > gaps && a.Health().State == aside.StateConnected })
	}
	asidetest.Stored(t, a, asidetest.Items.Key("a"), "old")
	confirmed("x")
	asidetest.Eventually(t, "there is a mark", func() bool { return only("%mark:*", "GET") == "1" })
	gaps := a.Metrics().TrackingLost
	server.MustDo(t, "SWAPDB", "0", "1")
	noticed(gaps)
	confirmed("a")
	for range 2 { // so that the next trial is some time away, and the next mark is not
		var before int64
		asidetest.Eventually(t, "it tries the server", func() bool {
			left, _ := only("%watch:*", "PTTL").(int64)
			tried := before > 0 && left > before
			before = left
			return tried
		})
	}
	gaps = a.Metrics().TrackingLost
	server.MustDo(t, "SWAPDB", "0", "1")
	require.Equal(t, "1", only("%mark:*", "GET"))
	require.EqualValues(t, 1, server.MustDo(t, "EXISTS", "items:a"))
	confirmed("y")
	noticed(gaps)
	asidetest.Eventually(t, "what the other one had confirmed is sent again", func() bool { return server.MustDo(t, "EXISTS", "items:a") == int64(0) })
}

// Hazard 56: what the server is tried with says nothing, since the server has named it meanwhile, and nothing more is invalidated. The
// earlier mark in the data that has come back is found all the same.
func TestHazard56AnEarlierMarkIsNoticed(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("there is one database there")
	}
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	a := asidetest.Connected(t, asidetest.At(proxy.Addr()))
	var mark string
	for _, id := range []string{"x", "y"} {
		_, err := a.Invalidate(t.Context(), asidetest.Items.Key(id))
		require.NoError(t, err)
	}
	asidetest.Eventually(t, "there is a mark", func() bool {
		names := server.MustDo(t, "KEYS", "%mark:*").([]any)
		if len(names) == 0 {
			return false
		}
		mark = names[0].(string)
		return server.MustDo(t, "GET", mark) == "2"
	})
	asidetest.Stored(t, a, asidetest.Items.Key("y"), "old")
	gaps := a.Metrics().TrackingLost
	server.MustDo(t, "SET", mark, "1")
	asidetest.Eventually(t, "it is noticed", func() bool { return a.Metrics().TrackingLost > gaps })
	asidetest.Eventually(t, "the second one is sent again", func() bool { return server.MustDo(t, "EXISTS", "items:y") == int64(0) })

	// By a connection that is made anew, it is found too, and the connection is used.
	for range 3 {
		asidetest.Eventually(t, "there is a later mark", func() bool { return server.MustDo(t, "GET", mark) != "1" })
		gaps := a.Metrics().TrackingLost
		server.MustDo(t, "SET", mark, "1")
		proxy.CloseConnections()
		asidetest.Eventually(t, "it is connected again", func() bool { return a.Metrics().TrackingLost > gaps && a.Health().State == aside.StateConnected })
		receipt, err := a.Invalidate(t.Context(), asidetest.Items.Key("y"))
		require.NoError(t, err)
		require.NoError(t, receipt.Wait(t.Context()))
	}
}

// Hazard 57: a generation that no number of a script can be greater than.
func TestHazard57AGenerationBeyondWhatScriptsCanCountIsNone(t *testing.T) {
	t.Parallel()
	for _, generation := range []string{"9007199254740992", "9007199254740993", "9999999999999999", "9223372036854775808", "abc"} {
		for _, tag := range []string{"%all", "%c:items", "%t:x"} {
			t.Run(tag+" "+generation, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				a, b := asidetest.Pair(t, server.Addr())
				server.MustDo(t, "SET", tag, generation)
				tags := aside.WithTags("x")
				asidetest.InMemory(t, b, asidetest.Items.Key("a"), asidetest.Value("old"), tags)
				change := map[string]func() (aside.Receipt, error){
					"%all":     func() (aside.Receipt, error) { return a.InvalidateAll(t.Context()) },
					"%c:items": func() (aside.Receipt, error) { return a.InvalidateCategory(t.Context(), "items") },
					"%t:x":     func() (aside.Receipt, error) { return a.InvalidateTags(t.Context(), "x") },
				}[tag]
				for _, now := range []string{"new", "newest"} {
					receipt, err := change()
					require.NoError(t, err)
					require.True(t, receipt.Confirmed)
					asidetest.AllTold(t, b)
					for _, opts := range [][]aside.CallOption{{tags, aside.Strong()}, {tags}} {
						v, err := aside.GetOrLoad(t.Context(), b, asidetest.Items.Key("a"), asidetest.Value(now), opts...)
						require.NoError(t, err)
						require.Equal(t, now, v)
					}
					asidetest.Eventually(t, "it is stored", func() bool { return slices.Contains([]any{int64(1)}, server.MustDo(t, "EXISTS", "items:a")) })
				}
			})
		}
	}
}

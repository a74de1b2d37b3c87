package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// These tests hold what tracking relies on of rueidis, and docs/consistency.md lists. They use rueidis alone. A version that fails
// one of them must not be used.

// A recorder notes what rueidis tells its cache, in order.
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func (r *recorder) Flight(string, string, time.Duration, time.Time) (m rueidis.RedisMessage, e rueidis.CacheEntry) {
	return m, nil
}

func (r *recorder) Update(key, cmd string, _ rueidis.RedisMessage) int64 {
	r.note("update %s %s", key, cmd)
	return 0
}
func (r *recorder) Cancel(key, _ string, _ error) { r.note("cancel %s", key) }
func (r *recorder) Close(error)                   { r.note("close") }

func (r *recorder) Delete(keys []rueidis.RedisMessage) {
	if keys == nil {
		r.note("delete all")
	}
	for _, k := range keys {
		key, _ := k.ToString()
		r.note("delete %s", key)
	}
}

func recorded(t *testing.T, addr string) (rueidis.Client, *recorder) {
	r := &recorder{}
	opt := withDefaults(rueidis.ClientOption{
		InitAddress: []string{addr}, ForceSingleClient: true, ConnWriteTimeout: bound,
		NewCacheStoreFn: func(rueidis.CacheStoreOption) rueidis.CacheStore { return r },
	})
	c, err := rueidis.NewClient(opt)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, r
}

func tracked(c rueidis.Client, key string, number uint64) rueidis.CacheableTTL {
	return rueidis.CT(c.B().Getrange().Key(key).Start(trackedStart(number)).End(99).Cache().ToStaticTTL(), time.Hour)
}

func TestRueidisShowsEachRequestBesideItsReplyInTheOrderOfTheWire(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, "SET", "a", "value")
	server.MustDo(t, "RPUSH", "list", "x")
	c, r := recorded(t, server.Addr())
	ctx := t.Context()
	value, err := c.DoCache(ctx, tracked(c, "a", 1).Cmd, time.Hour).ToString()
	require.NoError(t, err)
	require.Equal(t, "value", value, "a start before the beginning is the beginning")
	server.MustDo(t, "SET", "a", "another")
	require.Eventually(t, func() bool { return slices.Contains(r.all(), "delete a") }, bound, time.Millisecond)
	results := c.DoMultiCache(ctx, tracked(c, "a", 2), tracked(c, "missing", 3), tracked(c, "list", 4), tracked(c, "a", 5))
	require.Len(t, results, 4)
	require.True(t, IsWrongType(results[2].Error()))
	require.Equal(t, []string{
		"update a " + command99(1), "delete a", "update a " + command99(2), "update missing " + command99(3), "cancel list", "update a " + command99(5),
	}, r.all())
	server.MustDo(t, "FLUSHALL")
	require.Eventually(t, func() bool { return slices.Contains(r.all(), "delete all") }, bound, time.Millisecond)
	server.MustDo(t, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	require.Eventually(t, func() bool { return slices.Contains(r.all(), "close") }, bound, time.Millisecond)
}

func command99(number uint64) string { return fmt.Sprintf("GETRANGE%d99", trackedStart(number)) }

func TestRueidisTellsOfTheReplyToACallThatHasGivenUpAndOfNoOther(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c, r := recorded(t, proxy.Addr())
	gate := proxy.HoldReplies(func(args []string) bool { return args[0] == "GETRANGE" })
	hurried, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- c.DoCache(hurried, tracked(c, "a", 1).Cmd, time.Hour).Error() }()
	gate.Wait(t)
	cancel()
	require.ErrorIs(t, <-over, context.Canceled)
	patient := make(chan error, 1)
	go func() { patient <- c.DoCache(context.Background(), tracked(c, "a", 2).Cmd, time.Hour).Error() }()
	gate.Release()
	require.NoError(t, <-patient)
	updates := slices.DeleteFunc(r.all(), func(e string) bool { return !strings.HasPrefix(e, "update") })
	require.Equal(t, []string{"update a " + command99(1), "update a " + command99(2)}, updates)
}

func TestRueidisSwitchesTrackingOnForTheWholeConnection(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c, _ := recorded(t, proxy.Addr())
	require.NoError(t, c.DoCache(t.Context(), tracked(c, "a", 1).Cmd, time.Hour).Error())
	var seen []string
	for _, args := range proxy.Log() {
		seen = append(seen, strings.Join(args, " "))
	}
	require.Contains(t, seen, "CLIENT TRACKING ON OPTOUT")
	require.NotContains(t, strings.Join(seen, "\n"), "CACHING")
}

// A value is read back behind the command that stores it: see readback.go.
func TestRueidisTellsOfATrackedReadBehindAPlainCommand(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, r := recorded(t, server.Addr())
	require.NoError(t, c.DoCache(t.Context(), tracked(c, "a", 1).Cmd, time.Hour).Error())
	for n := uint64(2); n < 50; n++ {
		replies := c.DoMulti(t.Context(), c.B().Set().Key("a").Value("v").Build(), rueidis.Completed(tracked(c, "a", n).Cmd))
		require.NoError(t, firstError(replies))
		events := r.all()
		require.Equal(t, []string{"delete a", "update a " + command99(n)}, events[len(events)-2:], "the push of the own change comes before the reply")
	}
	server.MustDo(t, "SET", "a", "changed")
	require.Eventually(t, func() bool { events := r.all(); return events[len(events)-1] == "delete a" }, bound, time.Millisecond)
}

// Several values are read behind one ECHO: see sendTracked.
func TestRueidisTellsOfTrackedReadsBehindOnePlainCommand(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c, r := recorded(t, server.Addr())
	require.NoError(t, c.DoCache(t.Context(), tracked(c, "a", 1).Cmd, time.Hour).Error())
	server.MustDo(t, "SET", "b", "value")
	server.MustDo(t, "RPUSH", "list", "x")
	reads := rueidis.Commands{c.B().Echo().Message("").Build().ToPipe()}
	for i, key := range []string{"a", "b", "list", "a"} {
		reads = append(reads, rueidis.Completed(tracked(c, key, uint64(i+2)).Cmd))
	}
	replies := c.DoMulti(t.Context(), reads...)
	require.True(t, IsWrongType(replies[3].Error()))
	value, err := replies[2].ToString()
	require.NoError(t, err)
	require.Equal(t, "value", value)
	require.Equal(t, []string{"update a " + command99(1), "update a " + command99(2), "update b " + command99(3), "cancel list", "update a " + command99(5)}, r.all())
	server.MustDo(t, "SET", "b", "changed")
	require.Eventually(t, func() bool { events := r.all(); return events[len(events)-1] == "delete b" }, bound, time.Millisecond)
}

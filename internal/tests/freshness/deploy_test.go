package freshness_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 46: during a deployment two builds have policies of one name with different times. What counts for a call are the times of its own process.
// No value is served after the time that its writer has stored it for.
func TestEachProcessGoesByTheTimesOfItsOwnPolicy(t *testing.T) {
	t.Parallel()
	const brief, long = 500 * time.Millisecond, time.Hour
	for name, row := range map[string]deployRow{
		"the reader has no Stale":                      {windows{stale: long}, windows{}, 0, 0},
		"the reader has no StaleIfError":               {windows{onError: long}, windows{}, 0, 0},
		"the writer has no Stale":                      {windows{}, windows{stale: long}, 0, 0},
		"the writer has no StaleIfError":               {windows{}, windows{onError: long}, 0, 0},
		"the reader has a shorter Stale":               {windows{stale: long}, windows{stale: brief}, brief, brief},
		"the writer has a shorter Stale":               {windows{stale: brief}, windows{stale: long}, brief, brief},
		"the reader has a shorter StaleIfError":        {windows{onError: long}, windows{onError: brief}, 0, brief},
		"the writer has a shorter StaleIfError":        {windows{onError: brief}, windows{onError: long}, 0, brief},
		"the reader has Stale instead":                 {windows{onError: long}, windows{stale: brief}, brief, brief},
		"the writer has Stale instead":                 {windows{stale: brief}, windows{onError: long}, 0, brief},
		"the reader has a part of what the writer has": {windows{stale: brief / 2, onError: long}, windows{stale: brief}, brief, brief},
	} {
		for _, tier := range []string{"memory", "Redis"} {
			t.Run(name+"/"+tier, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				asidetest.Repeatedly(t, "the machine does not stall", func() bool { return row.try(t, server, tier) })
			})
		}
	}
}

type windows struct{ stale, onError time.Duration }

// A deployRow is what two builds say of a value, and what comes of it.
type deployRow struct {
	writer, reader windows
	atOnce, least  time.Duration // after the TTL, for how long the reader gets the value at once, and at all
}

// try asks for a value until it is dead. It reports whether it has seen each phase of it, which it must unless the machine stalls.
func (row deployRow) try(t *testing.T, server *redistest.Server, tier string) bool {
	const ttl = 400 * time.Millisecond
	server.FlushAll(t)
	policy := func(w windows) *aside.Policy {
		return &aside.Policy{Name: "items", Category: "items", TTL: ttl, Stale: w.stale, StaleIfError: w.onError, SoftTimeout: -1}
	}
	o := asidetest.At(server.Addr())
	writer := asidetest.Connected(t, o)
	if tier == "Redis" { // memory does not hold the value
		o.MaxBytes, o.MaxValueBytes = 1<<10, 1<<20
	}
	reader := asidetest.Connected(t, o)
	value := strings.Repeat("v", 1<<11)
	key := policy(row.reader).Key("a")
	var loaded time.Time
	_, err := aside.GetOrLoad(t.Context(), writer, policy(row.writer).Key("a"), func(context.Context) (string, error) {
		loaded = time.Now()
		return value, nil
	})
	require.NoError(t, err)
	counts := make(map[string]int)
	stalled, last := false, loaded
	for {
		asked := time.Now()
		stalled, last = stalled || asked.Sub(last) > 50*time.Millisecond, asked
		r, err := aside.Lookup(t.Context(), reader, key, down)
		switch {
		case err != nil:
			require.ErrorIs(t, err, errDown)
			counts["errors"]++
		case r.Reason == "past its TTL, being refreshed":
			require.Less(t, asked.Sub(loaded), ttl+row.atOnce, r.Reason)
			counts["at once"]++
		case r.Status == aside.StatusStale:
			require.Less(t, asked.Sub(loaded), ttl+row.least, r.Reason)
			counts["instead of an error"]++
		default:
			require.Equal(t, aside.StatusHit, r.Status)
			if row.least > 0 { // the TTL itself ends by an estimate of the server's clock
				require.Less(t, asked.Sub(loaded), ttl+row.least)
			}
			counts["fresh"]++
		}
		if err == nil {
			require.Equal(t, value, r.Value)
		}
		if counts["errors"] == 50 {
			break
		}
		<-time.After(2 * time.Millisecond)
	}
	t.Log(counts)
	seen := counts["fresh"] > 0 && (row.atOnce == 0 || counts["at once"] > 0) && (row.least == row.atOnce || counts["instead of an error"] > 0)
	require.True(t, seen || stalled)
	require.True(t, row.atOnce > 0 || counts["at once"] == 0)
	require.True(t, row.least > row.atOnce || counts["instead of an error"] == 0)
	return seen
}

// Redis keeps a value for longer than its writer has stored it for: a program has extended its expiry, or the server's clock was set back in between.
func TestAValueThatRedisKeepsForTooLongIsDead(t *testing.T) {
	t.Parallel()
	const window = 200 * time.Millisecond
	for name, windows := range map[string]func(p *aside.Policy, d time.Duration){
		"Stale":        func(p *aside.Policy, d time.Duration) { p.Stale = d },
		"StaleIfError": func(p *aside.Policy, d time.Duration) { p.StaleIfError = d },
	} {
		for _, inMemory := range []bool{false, true} {
			t.Run(name+map[bool]string{false: "/in Redis", true: "/in memory"}[inMemory], func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				writer, reader := asidetest.Connected(t, asidetest.At(server.Addr())), asidetest.Connected(t, asidetest.At(server.Addr()))
				of := func(d time.Duration) aside.Key { return brief(func(p *aside.Policy) { windows(p, d) }).Key("a") }
				key, loaded := of(time.Hour), time.Time{}
				asidetest.Repeatedly(t, "it is in its place within its time", func() bool {
					_, err := writer.Invalidate(t.Context(), of(window))
					require.NoError(t, err)
					asidetest.AllTold(t, reader)
					_, err = aside.GetOrLoad(t.Context(), writer, of(window), asidetest.Value("v"))
					require.NoError(t, err)
					loaded = time.Now()
					for server.MustDo(t, "PERSIST", key.String()) != int64(1) { // it is stored in the background
						if time.Since(loaded) > brief(ageing).TTL+window {
							return false
						}
					}
					return !inMemory || asidetest.InMemory(t, reader, key, asidetest.Value("too late")) == "v"
				})
				asidetest.Eventually(t, "its time is over", func() bool {
					over := true
					if inMemory {
						_, err := aside.GetOrLoad(t.Context(), reader, key, down)
						over = errors.Is(err, errDown)
					}
					return over && time.Since(loaded) > brief(ageing).TTL+window+200*time.Millisecond // the server's clock is known by an estimate
				})
				require.EqualValues(t, 1, server.MustDo(t, "EXISTS", key.String()))
				for range 10 {
					_, err := aside.GetOrLoad(t.Context(), reader, key, down)
					require.ErrorIs(t, err, errDown)
				}
			})
		}
	}
}

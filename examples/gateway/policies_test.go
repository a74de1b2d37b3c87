package main

import (
	"context"
	"errors"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidetest"
)

// Each policy is valid, and those of one set have names of their own.
func TestThePoliciesAreThoseThatACacheTakes(t *testing.T) {
	for _, keys := range []*policySet{newPolicies(), newPolicies().compressed(3600), newPolicies().compressed(100_000).ttlAlone()} {
		asidetest.New(t, aside.Options{Policies: keys.list()})
	}
	keys, plain := newPolicies().compressed(3600), newPolicies().compressed(3600).ttlAlone()
	require.Equal(t, time.Second, keys.modelsAll.TTL)
	require.Equal(t, time.Second, keys.modelsAll.Stale)
	require.Equal(t, 24*time.Second, keys.modelsAll.StaleIfError)
	require.Equal(t, time.Second, plain.modelsAll.TTL)
	require.Zero(t, plain.modelsAll.Stale)
	require.Zero(t, plain.rankingsApps.RefreshAhead)
	require.Equal(t, aside.TTL.ModelsAll.TTL, newPolicies().modelsAll.TTL, "the table is not changed")
}

// What a caller gets of each kind of value when its TTL is over, and the source is down. All times are compressed: the goroutines of the cache that
// wake up now and then would take a minute of processor time for two days.
func TestWhatIsServedPastItsTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hour = time.Minute
		keys := newPolicies().compressed(float64(time.Hour / hour))
		c := asidetest.New(t, aside.Options{Policies: keys.list(), Stale: hour}) // a default that credits do not take
		down := errors.New("the source is down")
		ask := func(key aside.Key, err error) (string, error) {
			return aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) { return "a value", err })
		}
		for _, test := range []struct {
			key    aside.Key
			after  time.Duration
			served bool
		}{
			{keys.modelsKey("all"), 3 * hour / 2, true},
			{keys.modelsKey("maple"), 24 * hour, true},
			{keys.modelKey("maple/small"), 26 * hour, false},
			{keys.creditsKey("ABC"), hour/12 - 1, true},
			{keys.creditsKey("ABC"), hour / 12, false},
		} {
			_, err := ask(test.key, nil)
			require.NoError(t, err)
			time.Sleep(test.after)
			_, err = ask(test.key, down)
			if test.served {
				require.NoError(t, err, test.key.String())
			} else {
				require.ErrorIs(t, err, down, test.key.String())
			}
			asidetest.Settled(t, c)
			_, err = c.Invalidate(t.Context(), test.key)
			require.NoError(t, err)
		}
	})
}

// A hit on a value past its TTL says so in its header.
func TestAStaleAnswerSaysSo(t *testing.T) {
	keys := newPolicies()
	keys.modelsGateway.TTL = 50 * time.Millisecond // and an hour of Stale
	run := startWith(t, keys)
	path := "/api/models?gateway=oak"
	require.Contains(t, run.get(path, "").header.Get("Cache-Status"), "fwd=miss")
	require.NoError(t, run.backend.upstreams.servers[1].http.Close()) // so it is not refreshed
	past := regexp.MustCompile(`^aside; hit; ttl=-[1-9]\d*; detail=(memory|redis)$`)
	require.Eventually(t, func() bool {
		return past.MatchString(run.get(path, "").header.Get("Cache-Status"))
	}, time.Minute, time.Millisecond)
}

// A read that waits for a load that fails, and then gets an old value, is no hit in the report.
func TestAnOldValueAfterAFailedLoadIsNoHitOfTheReport(t *testing.T) {
	keys := newPolicies()
	keys.modelsGateway.TTL, keys.modelsGateway.Stale = 50*time.Millisecond, -1 // and a day of StaleIfError
	run := startWith(t, keys)
	path := "/api/models?gateway=oak"
	run.get(path, "")
	require.NoError(t, run.backend.upstreams.servers[1].http.Close())
	old := regexp.MustCompile(`^aside; (fwd=stale; ttl=-[1-9]\d*; detail=load-failed|hit; ttl=-[1-9]\d*; detail=backoff)$`)
	require.Eventually(t, func() bool {
		return old.MatchString(run.get(path, "").header.Get("Cache-Status"))
	}, time.Minute, time.Millisecond)
	run.mu.Lock()
	defer run.mu.Unlock()
	require.Equal(t, fromOld, run.samples[len(run.samples)-1].outcome)
}

package engine

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/freshness"
	"github.com/gatewayz/aside/internal/near"
)

// The pause after a failed load in the background is ten times the backoff of callers, from a second up, and at most a third of the time for which
// the older value is served at once, then of the time for which it stands in for an error.
func TestAFailedRefreshIsTriedAgainBeforeAnybodyWaits(t *testing.T) {
	t.Parallel()
	e := open(t, "", func(o *Options) { o.Backoff, o.MaxBackoff = time.Second, 5*time.Second })
	now := e.Clock.Now()
	attemptOf := func(stale, dead time.Duration) *attempt {
		a := newAttempt(requestOf(items(), "a"))
		a.old = &near.Entry{Plan: &near.Plan{Times: freshness.Times{RefreshAt: now, FreshUntil: now, StaleUntil: now + int64(stale), DeadUntil: now + int64(dead)}}}
		return a
	}
	require.Equal(t, time.Second, e.pauseAfterFailure(attemptOf(time.Hour, time.Hour)))
	require.InDelta(t, time.Second/2, e.pauseAfterFailure(attemptOf(1500*time.Millisecond, time.Hour)), float64(100*time.Millisecond))
	require.InDelta(t, time.Second/2, e.pauseAfterFailure(attemptOf(-time.Second, 1500*time.Millisecond)), float64(100*time.Millisecond))
	require.Equal(t, time.Millisecond, e.pauseAfterFailure(attemptOf(-time.Second, -time.Second)), "and never none at all")

	a := attemptOf(time.Hour, time.Hour)
	for range 2 { // the second one in a row puts the key into backoff
		e.failures.Note(a.Key, a.Policy.Owner, e.failures.Last(), func() error { return errors.New("down") })
	}
	require.Greater(t, e.pauseAfterFailure(a), 5*time.Second)
	a.retryAfter = time.Minute
	require.Equal(t, time.Minute, e.pauseAfterFailure(a), "what the loader has said counts")
	a.retryAfter, a.refused = 0, errors.New("too large")
	require.Equal(t, 50*time.Second, e.pauseAfterFailure(a), "a value that was refused is likely to be refused again")
}

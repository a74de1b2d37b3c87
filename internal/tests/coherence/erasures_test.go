package coherence_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A value of memory alone outlives each invalidation that is not about it. Only a pattern of its category ends it although it does not match.
func TestAValueOfPlaceMemoryOutlivesInvalidationsOfOthers(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, placed(server)), asidetest.Connected(t, placed(server))
	both := aside.Policy{Category: "percall", TTL: time.Hour}
	tagged := []aside.CallOption{aside.WithTags("unrelated")}
	pattern := func(text string) error {
		p, err := aside.ParsePattern(text)
		require.NoError(t, err)
		_, err = b.InvalidatePattern(t.Context(), p)
		return err
	}
	for name, of := range map[string]struct {
		invalidate func(beside aside.Key) error
		ended      bool
	}{
		"tag":                 {func(aside.Key) error { _, err := b.InvalidateTags(t.Context(), "unrelated"); return err }, false},
		"key":                 {func(beside aside.Key) error { _, err := b.Invalidate(t.Context(), beside); return err }, false},
		"category":            {func(aside.Key) error { _, err := b.InvalidateCategory(t.Context(), both.Category); return err }, false},
		"pattern":             {func(aside.Key) error { return pattern("percall:*") }, false},
		"pattern of its own":  {func(aside.Key) error { return pattern("memoryalone:x*") }, true},
		"pattern of one name": {func(aside.Key) error { return pattern("memoryalone:y") }, true},
	} {
		for round := range 5 {
			key, beside := inMemoryAlone.Key(name, round), both.Key(name, round)
			if of.ended {
				beside = inMemoryAlone.Key(name, round, "beside")
			}
			asidetest.InMemory(t, a, beside, asidetest.Value("beside"), tagged...)
			asidetest.InMemory(t, a, key, asidetest.Value("kept"), aside.WithTags("its own"))
			require.NoError(t, of.invalidate(beside), name)
			asidetest.Eventually(t, "the push has come of "+name, func() bool {
				_, err := aside.Get[string](t.Context(), a, beside)
				return err != nil
			})
			if !of.ended {
				r, err := aside.Lookup(t.Context(), a, key, asidetest.Value("loaded again"), aside.WithTags("its own"))
				require.NoError(t, err)
				require.Equal(t, "kept", r.Value, name)
				require.Equal(t, aside.TierMemory, r.Tier, name)
			}
		}
	}
}

// A load of a value of memory alone that an invalidation by pattern overtakes is joined by no later caller, and its value is not kept.
func TestAPatternOvertakesLoadsOfPlaceMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := asidetest.Connected(t, placed(server)), asidetest.Connected(t, placed(server))
	for round := range 10 {
		key := inMemoryAlone.Key("round", round)
		started, release, first := make(chan struct{}), make(chan struct{}), make(chan string, 1)
		go func() {
			v, err := aside.GetOrLoad(t.Context(), a, key, func(context.Context) (string, error) {
				close(started)
				<-release
				return "old", nil
			})
			first <- fmt.Sprint(v, err)
		}()
		<-started
		before := a.Metrics().InvalidationMessages
		p, err := aside.ParsePattern("memoryalone:round:*")
		require.NoError(t, err)
		_, err = b.InvalidatePattern(t.Context(), p)
		require.NoError(t, err)
		asidetest.Eventually(t, "the pushes of both names have come", func() bool { return a.Metrics().InvalidationMessages >= before+2 })
		second := make(chan string, 1)
		go func() {
			v, err := aside.GetOrLoad(t.Context(), a, key, asidetest.Value("new"))
			second <- fmt.Sprint(v, err)
		}()
		select {
		case got := <-second:
			require.Equal(t, "new<nil>", got)
		case <-time.After(asidetest.Bound):
			close(release)
			t.Fatal("a later caller has joined the load")
		}
		close(release)
		require.Equal(t, "old<nil>", <-first)
		v, err := aside.GetOrLoad(t.Context(), a, key, asidetest.Value("newer"))
		require.NoError(t, err)
		require.NotEqual(t, "old", v)
	}
}

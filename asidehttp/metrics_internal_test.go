package asidehttp

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// Those who look on do not take from the sweeps what Redis has time for, however many they are: they wait for their turn, and no
// longer than they may.
func TestFewRequestsGoOverKeysAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, aside.Set(context.Background(), c, aside.TTL.ModelsAll.Key("all"), "v"))
		h := newHandler(c, Options{APIKeys: []aside.Secret{aside.NewSecret(secret)}, Logger: slog.New(slog.DiscardHandler)})
		counted := func() (n int64, complete bool) {
			got, p := h.matched(t.Context(), visitor{}, selection{kind: everything})
			require.Nil(t, p)
			return *got.MemoryEntries, got.Complete
		}
		for range mostCounting {
			h.turns.all <- struct{}{}
		}
		began := time.Now()
		list := h.list(context.Background(), visitor{}, aside.TTL.ModelsAll.Match(aside.Wildcard))
		require.Equal(t, defaultWait, time.Since(began))
		require.False(t, list.Complete)
		require.Equal(t, "too many listings and dry runs at once: no turn in time", list.Error)

		go func() { time.Sleep(time.Second); <-h.turns.all }()
		n, complete := counted()
		require.True(t, complete)
		require.EqualValues(t, 1, n)
		require.Len(t, h.turns.all, mostCounting-1, "the turn is given back")
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/?pattern=models:*", strings.NewReader(""))
		h.show(w, r, visitor{credential: credential{may: mayRead}}, false)
		require.True(t, json.Valid(w.Body.Bytes()))
		require.Contains(t, w.Body.String(), `"total_keys":1`)
	})
}

func TestAllHandlersOfACacheShareTheirTurns(t *testing.T) {
	t.Parallel()
	c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer c.Close()
	other, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer other.Close()
	o := Options{APIKeys: []aside.Secret{aside.NewSecret(secret)}, Logger: slog.New(slog.DiscardHandler)}
	first := newHandler(c, o)
	first.turns.all <- struct{}{}
	require.Len(t, newHandler(c, o).turns.all, 1)
	require.Empty(t, newHandler(other, o).turns.all)
	require.Empty(t, newHandler(nil, o).turns.all)
	<-first.turns.all
}

// Whoever asks most for listings holds up nobody but himself: a key has one place at a time, and those that wait get theirs in the
// order of asking.
func TestAReaderDoesNotStarveTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		var mu sync.Mutex
		var order []string // guarded by mu
		sofar := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(order)
		}
		listing := func(name string, takes time.Duration) {
			end, err := turns.take(t.Context(), sha256.Sum256([]byte(name)))
			require.NoError(t, err)
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			time.Sleep(takes)
			end()
		}
		began := time.Now()
		for range 50 {
			go listing("greedy", 5*time.Second)
		}
		synctest.Wait()
		require.Equal(t, []string{"greedy"}, sofar())
		listing("other", time.Second)
		require.Equal(t, time.Second, time.Since(began), "it has not waited")

		// With three keys for two places, none waits for more than one listing of each of the others.
		for range 10 {
			go listing("second", 5*time.Second)
		}
		synctest.Wait()
		time.Sleep(time.Millisecond)
		asked := time.Now()
		listing("other", time.Second)
		require.LessOrEqual(t, time.Since(asked), 6*time.Second)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := turns.take(ctx, sha256.Sum256([]byte("greedy")))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(10 * time.Minute)
		require.Empty(t, turns.all, "every turn is given back")
		require.Len(t, sofar(), 62)
		for _, own := range turns.own {
			require.Empty(t, own)
		}
	})
}

// Listings and dry runs take the place of the key that asks.
func TestAListingTakesThePlaceOfItsKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		h := newHandler(c, Options{Logger: slog.New(slog.DiscardHandler)})
		busy, other := visitor{credential: credential{sum: sha256.Sum256([]byte("busy"))}}, visitor{credential: credential{sum: sha256.Sum256([]byte("other"))}}
		end, err := h.turns.take(t.Context(), busy.sum)
		require.NoError(t, err)
		defer end()
		models := aside.TTL.ModelsAll.Match(aside.Wildcard)
		complete := func(who visitor) []bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			dry, p := h.matched(ctx, who, selection{kind: everything})
			require.Nil(t, p)
			return []bool{h.list(t.Context(), who, models).Complete, dry.Complete}
		}
		require.Equal(t, []bool{false, false}, complete(busy))
		require.Equal(t, []bool{true, true}, complete(other))
	})
}

// Nobody holds a place for longer than others wait for one.
//
//  1. Two keys have dry runs counted that go on for longer than anybody waits, and ask again when these are over.
//  2. A third key asks for a listing, and waits for its turn.
//  3. Their turns are over, and the third one has the next.
func TestATurnIsOverBeforeOthersHaveWaitedInVain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		for i := range 1000 {
			require.NoError(t, aside.Set(t.Context(), c, aside.TTL.ModelsAll.Key(i), "v"))
		}
		h := newHandler(c, Options{Logger: slog.New(slog.DiscardHandler)})
		models := aside.TTL.ModelsAll.Match(aside.Wildcard)
		ctx, cancel := context.WithTimeout(t.Context(), maxWait)
		var wg sync.WaitGroup
		for _, name := range []string{"one", "two"} {
			for range 2 {
				wg.Go(func() {
					for ctx.Err() == nil {
						n := int64(0)
						err := h.count(ctx, ctx, visitor{credential: credential{sum: sha256.Sum256([]byte(name))}}, models, func(aside.KeyInfo) bool {
							time.Sleep(100 * time.Millisecond) // Redis is slow
							return true
						}, &n)
						if err == nil {
							t.Error("it was not slow")
						}
					}
				})
			}
		}
		synctest.Wait()
		for range 3 {
			asked := time.Now()
			list := h.list(t.Context(), visitor{}, models)
			require.True(t, list.Complete, list.Error)
			require.EqualValues(t, 1000, list.TotalKeys)
			require.LessOrEqual(t, time.Since(asked), mostOfATurn+100*time.Millisecond)
		}
		cancel()
		wg.Wait()

		// What is not done within a turn says so.
		n := int64(0)
		err = h.count(t.Context(), t.Context(), visitor{}, models, func(aside.KeyInfo) bool { time.Sleep(time.Second); return true }, &n)
		require.ErrorIs(t, err, errTurnOver)
		require.NotZero(t, n)
		require.Empty(t, h.turns.all, "the place is given back")
	})
}

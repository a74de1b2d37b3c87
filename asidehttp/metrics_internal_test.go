package asidehttp

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strings"
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
		h := newHandler(c, Options{APIKeys: []string{secret}, Logger: slog.New(slog.DiscardHandler)})
		counted := func() (n int64, complete bool) {
			got, p := h.matched(t.Context(), selection{kind: everything})
			require.Nil(t, p)
			return *got.MemoryEntries, got.Complete
		}
		for range mostCounting {
			h.counting <- struct{}{}
		}
		began := time.Now()
		list := h.list(context.Background(), aside.TTL.ModelsAll.Match(aside.Wildcard))
		require.Equal(t, defaultWait, time.Since(began))
		require.False(t, list.Complete)
		require.Equal(t, "not done within 5s", list.Error)

		go func() { time.Sleep(time.Second); <-h.counting }()
		n, complete := counted()
		require.True(t, complete)
		require.EqualValues(t, 1, n)
		require.Len(t, h.counting, mostCounting-1, "the turn is given back")
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
	o := Options{APIKeys: []string{secret}, Logger: slog.New(slog.DiscardHandler)}
	first := newHandler(c, o)
	first.counting <- struct{}{}
	require.Len(t, newHandler(c, o).counting, 1)
	require.Empty(t, newHandler(other, o).counting)
	require.Empty(t, newHandler(nil, o).counting)
	<-first.counting
}

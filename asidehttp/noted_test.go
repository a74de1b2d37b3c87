package asidehttp_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// The log has no more than a line a second at level Warn, whatever a key sends that may not do what it asks. Each line says for how many
// requests it stands, and no key hides another.
func TestAKeyWithoutItsScopeDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		var log output
		o := options(&log)
		o.Rate = 0
		handlers := []http.Handler{asidehttp.AdminHandler(c, o), asidehttp.AdminHandler(c, o)}
		for range 100 {
			for i := range 10 {
				ask(handlers[i%2], "POST", "/", `{"category":"models"}`, "Bearer "+keyRead)
			}
			time.Sleep(time.Second)
		}
		require.Equal(t, 10, strings.Count(log.String(), "asidehttp: denied"))
		ask(handlers[0], "POST", "/", `{"category":"models"}`, "Bearer "+keyRead)
		ask(handlers[0], "POST", "/", `{"category":"all"}`, "Bearer "+keyChange)
		requests := map[string]float64{}
		for line := range strings.Lines(log.String()) {
			var fields map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &fields))
			requests[fields["key"].(string)] += fields["requests"].(float64)
		}
		require.Equal(t, map[string]float64{"dashboard": 1001, "deploy": 1}, requests)
	})
}

// The log has a line about requests without a valid key every ten seconds at most, however many handlers there are.
func TestOneLineOfOutsidersForAllHandlers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		var log output
		o := options(&log)
		handlers := []http.Handler{asidehttp.AdminHandler(c, o), asidehttp.Metrics(c, o)}
		for range 9 {
			for _, h := range handlers {
				ask(h, "GET", "/?metrics=true", "", "Bearer "+keyWrong)
			}
			time.Sleep(time.Second)
		}
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	})
}

// Nobody writes into the log what a terminal would follow.
func TestControlCharactersAreEscapedInTheLog(t *testing.T) {
	t.Parallel()
	const control = "\u0085\u009b31m\u202e"
	for name, handler := range map[string]func(io.Writer) slog.Handler{
		"JSON": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
		"text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log output
			o := options(io.Discard)
			o.Keys[0].Name += control
			o.Logger = slog.New(handler(&log))
			h := asidehttp.AdminHandler(newCache(t, aside.Options{Policies: []aside.Policy{aside.TTL.ModelsAll}}), o)
			require.Equal(t, 200, ask(h, "POST", "/", `{"tags":["tag`+control+`"]}`, "Bearer "+keyAll).Code)
			require.Equal(t, 422, ask(h, "POST", "/", `{"keys":["models:`+control+`"]}`, "Bearer "+keyAll).Code) // no line
			require.Equal(t, 403, ask(h, "POST", "/", `{"category":"models"}`, "Bearer "+keyRead).Code)
			front := newFrontEnd(func(string, int) *http.Response { return status(400) })
			r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, Logger: o.Logger})
			r.Send(asidehttp.Target{Tag: "tag" + control})
			require.NoError(t, r.Close(t.Context()))
			logged(t, &log, "\n", 3)
			require.Equal(t, 3, strings.Count(log.String(), "\n"), log.String())
			for _, c := range control {
				if c > 0x7f {
					require.NotContains(t, log.String(), string(c))
				}
			}
			require.Equal(t, 3, strings.Count(log.String(), "u009b31m"), log.String())
		})
	}
}

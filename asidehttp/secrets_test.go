package asidehttp_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/walk"
)

// keptBy is a configuration as a program may have it: fmt asks nothing in an unexported field how it wants to be printed.
type keptBy[T any] struct {
	Public  T
	private T
	pointer *T
	list    []T
	table   map[string]T
	any     any
	nested  struct{ inner struct{ value T } }
}

func requireNoCanary(t *testing.T, text, where string) {
	t.Helper()
	numbers := strings.Trim(fmt.Sprint([]byte("canary")), "[]")
	for _, sign := range []string{"canary", base64.RawStdEncoding.EncodeToString([]byte("canary")), hex.EncodeToString([]byte("canary")),
		strings.ToUpper(hex.EncodeToString([]byte("canary"))), numbers, strings.ReplaceAll(numbers, " ", ", "), strings.ReplaceAll(numbers, " ", ",")} {
		require.NotContains(t, text, sign, where)
	}
}

// requireHidden goes through a value as everything does that prints or encodes values.
func requireHidden[T any](t *testing.T, v T, where string) {
	t.Helper()
	kept := keptBy[T]{Public: v, private: v, pointer: &v, list: []T{v}, table: map[string]T{"x": v}, any: v}
	kept.nested.inner.value = v
	for _, v := range []any{v, &v, kept, &kept, []any{kept}, map[string]any{"x": &kept}} {
		var all bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&all, verb+"\n", v)
		}
		for _, h := range []slog.Handler{slog.NewJSONHandler(&all, nil), slog.NewTextHandler(&all, nil)} {
			slog.New(h).Info("message", "value", v, slog.Group("in", "value", v))
		}
		text, _ := json.Marshal(v)
		all.Write(text)
		_ = gob.NewEncoder(&all).Encode(v)
		_ = xml.NewEncoder(&all).Encode(v)
		requireNoCanary(t, all.String(), fmt.Sprintf("%s as %T", where, v))
		walk.Texts(v, func(path string, text []byte) { requireNoCanary(t, string(text), where+" at "+path) })
	}
}

func TestReflectionFindsNoSecret(t *testing.T) {
	t.Parallel()
	// The proof that this test would see one.
	found := 0
	walk.Texts(keptBy[string]{private: keyAll, table: map[string]string{"x": keyAll}}, func(_ string, text []byte) {
		if string(text) == keyAll {
			found++
		}
	})
	require.Equal(t, 2, found)

	front := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer front.Close()
	o := options(io.Discard)
	r := asidehttp.RevalidatorOptions{
		URL: aside.NewSecret(front.URL + "/canary-in-the-path?token=canary-in-the-query"), Secret: aside.NewSecret(secretOfFrontEnd), Query: true,
		Logger: slog.New(slog.DiscardHandler),
	}
	sender, err := asidehttp.NewRevalidator(r)
	require.NoError(t, err)
	sender.Send(asidehttp.Target{Tag: "a"})
	eventually(t, "its connection has sent the secret", func() bool { return sender.Stats().Delivered == 1 })
	require.NoError(t, sender.Close(t.Context())) // or its goroutine would work in what is gone through below
	c := newCache(t, aside.Options{})

	requireHidden(t, o, "Options")
	requireHidden(t, o.Keys[0], "a Key")
	requireHidden(t, o.Keys, "Keys")
	requireHidden(t, o.APIKeys, "APIKeys")
	requireHidden(t, r, "RevalidatorOptions")
	withUser := r
	withUser.URL = aside.NewSecret("https://user:canary@www.example.com/") // refused, but it may be printed before
	requireHidden(t, withUser, "RevalidatorOptions with a user")
	requireHidden(t, sender, "a Revalidator")
	requireHidden(t, asidehttp.HealthOptions{}, "HealthOptions")
	requireHidden(t, asidehttp.AdminHandler(c, o), "an AdminHandler")
	requireHidden(t, asidehttp.Metrics(c, o), "Metrics")
}

// A Revalidator with a Client of the program's own has sent its secret. What goes through it by reflection finds none.
func TestASenderWithAClientHidesItsSecret(t *testing.T) {
	t.Parallel()
	front := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer front.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	r, err := asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{
		URL: aside.NewSecret(front.URL + "/canary-in-the-path?token=canary-in-the-query"), Secret: aside.NewSecret(secretOfFrontEnd),
		Logger: slog.New(slog.DiscardHandler), Client: &http.Client{Transport: transport},
	})
	require.NoError(t, err)
	r.Send(asidehttp.Target{Tag: "a"})
	eventually(t, "it is delivered", func() bool { return r.Stats().Delivered == 1 })
	require.NoError(t, r.Close(t.Context()))
	walk.Texts(r, func(path string, text []byte) {
		require.NotContains(t, string(text), "canary", path)
	})
}

// What New says of wrong options holds no secret.
func TestErrorsOfNewHoldNoSecret(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{
		"redis://:canary@localhost:6379", "redis://canary:x@localhost", ":canary@localhost:6379", "user:canary@localhost:6379", "canary@localhost",
		"localhost:canary", "//:canary@localhost:6379", "redis:canary@localhost:6379", "localhost:6379?password=canary", "localhost:6379/canary",
	} {
		var log output
		c, err := aside.New(aside.Options{Redis: rueidis.ClientOption{InitAddress: []string{addr}}, Logger: slog.New(slog.NewJSONHandler(&log, nil))})
		if err != nil {
			require.NotContains(t, err.Error(), "canary", addr)
			continue
		}
		eventually(t, "it has failed", func() bool { return !strings.HasPrefix(c.Health().Reason, "connecting") })
		health := fmt.Sprintf("%+v", c.Health())
		w := httptest.NewRecorder()
		asidehttp.Health(c, asidehttp.HealthOptions{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		c.Close()
		if strings.Contains(health+w.Body.String()+log.String(), "canary") {
			t.Error(addr, health, log.String())
		}
	}
}

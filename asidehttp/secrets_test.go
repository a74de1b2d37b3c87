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
	"time"

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
	require.Eventually(t, func() bool { return sender.Stats().Delivered == 1 }, 20*time.Second, time.Millisecond) // its connection has sent the secret
	require.NoError(t, sender.Close(t.Context()))                                                                 // or its goroutine would work in what is gone through below
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
	requireHidden(t, asidehttp.Handler(c, o), "a Handler")
	requireHidden(t, asidehttp.Metrics(c, o), "Metrics")
}

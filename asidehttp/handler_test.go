package asidehttp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

const key = "the-key-of-today"

func newCache(t testing.TB) *aside.Cache {
	c, err := aside.New(aside.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func serve(h http.Handler, method, target, authorization string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestMetricsInTheDocumentedForm(t *testing.T) {
	t.Parallel()
	c := newCache(t)
	models := aside.TTL.ModelsAll.Key("all", "all")
	for range 4 {
		_, err := aside.GetOrLoad(context.Background(), c, models, func(context.Context) (string, error) { return "v", nil })
		require.NoError(t, err)
	}
	w := serve(asidehttp.Handler(c, asidehttp.Options{APIKeys: []string{key}}), "GET", "/?metrics=true", "Bearer "+key)
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	var got struct {
		Metrics map[string]map[string]float64 `json:"metrics"`
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	m := got.Metrics["models"]
	require.Equal(t, []float64{3, 1, 0, 0.75, 0.25}, []float64{m["hits"], m["misses"], m["errors"], m["hitRate"], m["missRate"]})
}

func TestKeysArePrintedByNoVerb(t *testing.T) {
	t.Parallel()
	o := asidehttp.Options{APIKeys: []string{key}}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "options", o, "pointer", &o)
	require.NotContains(t, log.String()+fmt.Sprintf("%v %+v %#v %s %d %x %v", o, o, o, o, o, o, &o), key)
	require.Equal(t, "asidehttp.Options{1 keys}", fmt.Sprint(o))
}

func TestEveryRequestGetsItsStatus(t *testing.T) {
	t.Parallel()
	c := newCache(t)
	open := asidehttp.Handler(c, asidehttp.Options{APIKeys: []string{"", "the-key-of-yesterday\n", key}})
	shut := asidehttp.Handler(c, asidehttp.Options{APIKeys: []string{"", " \n"}})
	for _, tt := range []struct {
		name          string
		handler       http.Handler
		method        string
		target        string
		authorization string
		status        int
	}{
		{"a known key", open, "GET", "/?metrics=true", "Bearer " + key, 200},
		{"the other known key", open, "GET", "/?metrics=true", "Bearer the-key-of-yesterday", 200},
		{"the scheme in lower case", open, "GET", "/?metrics=true", "bearer " + key, 200},
		{"no key", open, "GET", "/?metrics=true", "", 401},
		{"an unknown key", open, "GET", "/?metrics=true", "Bearer no", 401},
		{"the beginning of a key", open, "GET", "/?metrics=true", "Bearer " + key[:5], 401},
		{"an empty key", open, "GET", "/?metrics=true", "Bearer ", 401},
		{"another scheme", open, "GET", "/?metrics=true", "Basic " + key, 401},
		{"no scheme", open, "GET", "/?metrics=true", key, 401},
		{"no key configured, none sent", shut, "GET", "/?metrics=true", "Bearer ", 401},
		{"no key configured, one sent", shut, "GET", "/?metrics=true", "Bearer " + key, 401},
		{"POST", open, "POST", "/?metrics=true", "Bearer " + key, 405},
		{"DELETE", open, "DELETE", "/?metrics=true", "Bearer " + key, 405},
		{"POST without a key", open, "POST", "/?metrics=true", "", 401},
		{"nothing asked for", open, "GET", "/", "Bearer " + key, 400},
		{"metrics=false", open, "GET", "/?metrics=false", "Bearer " + key, 400},
		{"an unknown parameter", open, "GET", "/?metrics=true&patern=x", "Bearer " + key, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := serve(tt.handler, tt.method, tt.target, tt.authorization)
			require.Equal(t, tt.status, w.Code)
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			require.Equal(t, tt.status == 401, w.Header().Get("WWW-Authenticate") != "")
			require.Equal(t, tt.status == 405, w.Header().Get("Allow") != "")
			require.NotContains(t, w.Body.String(), key)
			if tt.status == 200 {
				return
			}
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			var p struct {
				Status int
				Detail string
			}
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
			require.Equal(t, tt.status, p.Status)
			require.True(t, strings.Contains(p.Detail, "Bearer") || strings.Contains(p.Detail, "?metrics=true"), "the answer says what to send: %q", p.Detail)
		})
	}
}

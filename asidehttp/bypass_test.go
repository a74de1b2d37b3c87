package asidehttp_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

func TestAnOperatorSwitchesTheCacheOffAndOn(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	c := newCache(t, aside.Options{Policies: []aside.Policy{{Category: "one", TTL: time.Hour}, {Category: "two", TTL: time.Hour}}})
	h := asidehttp.AdminHandler(c, options(&log))
	for _, step := range []struct {
		body string
		want []string
	}{
		{`{"bypass":"one","on":true}`, []string{"one"}},
		{`{"on":true,"bypass":"two"}`, []string{"one", "two"}},
		{`{"bypass":"one","on":false}`, []string{"two"}},
		{`{"bypass":"all","on":true}`, []string{"all", "two"}},
		{`{"bypass":"all","on":false}`, []string{}},
	} {
		log.Reset()
		w := ask(h, "POST", "/", step.body, "Bearer "+keyAll)
		require.Equal(t, 200, w.Code, w.Body)
		var body struct {
			Success  bool
			Bypassed []string
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
		require.True(t, body.Success)
		require.Equal(t, step.want, body.Bypassed, step.body)
		require.Contains(t, w.Body.String(), `"bypassed":[`)
		require.ElementsMatch(t, step.want, c.Health().Bypassed)
		require.Contains(t, log.String(), `"asidehttp: bypass ordered"`)
		require.Contains(t, log.String(), `"category":"`)
	}

	for body, status := range map[string]int{
		`{"bypass":"none","on":true}`:                 422,
		`{"bypass":"one"}`:                            400,
		`{"bypass":"one","on":null}`:                  400,
		`{"bypass":"one","on":"yes"}`:                 400,
		`{"bypass":"","on":true}`:                     400,
		`{"bypass":["one"],"on":true}`:                400,
		`{"bypass":"one","on":true,"dry_run":true}`:   400,
		`{"bypass":"one","on":true,"wait":1}`:         400,
		`{"bypass":"one","on":true,"category":"two"}`: 400,
		`{"category":"one","on":true}`:                400,
		`{"warm":"one","on":true}`:                    400,
	} {
		w := ask(h, "POST", "/", body, "Bearer "+keyAll)
		require.Equal(t, status, w.Code, "%s: %s", body, w.Body)
		require.Empty(t, c.Health().Bypassed, body)
	}
	require.Equal(t, 403, ask(h, "POST", "/", `{"bypass":"one","on":true}`, "Bearer "+keyChange).Code, "it takes ScopeAll")
	require.Empty(t, c.Health().Bypassed)

	require.NoError(t, c.Bypass(true))
	require.Equal(t, 422, ask(h, "POST", "/", `{"bypass":"one","on":false}`, "Bearer "+keyAll).Code, "all are switched on together")
	require.NoError(t, c.Close())
	require.Equal(t, 503, ask(h, "POST", "/", `{"bypass":"one","on":true}`, "Bearer "+keyAll).Code)
}

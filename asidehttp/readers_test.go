package asidehttp_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Two keys that count all the time do not keep a third one from its listing.
func TestTwoReadersDoNotKeepAThirdFromItsListing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	c := listing(t, proxy.Addr())
	for i := range 150 {
		args := []string{"MSET"}
		for j := range 1000 {
			args = append(args, fmt.Sprintf("models:%d:%d", i, j), "foreign")
		}
		server.MustDo(t, args...)
	}
	both := []asidehttp.Scope{asidehttp.ScopeRead, asidehttp.ScopeInvalidate}
	for i := range 200 {
		asidetest.Stored(t, c, aside.TTL.ModelsAll.Key("real", i), "v")
	}
	h := asidehttp.AdminHandler(c, asidehttp.Options{
		APIKeys: keysOf(keyAll), Logger: slog.New(slog.DiscardHandler),
		Keys: []asidehttp.Key{
			{Name: "one", Secret: aside.NewSecret(keyRead), Scopes: both}, {Name: "two", Secret: aside.NewSecret(keyOld), Scopes: both},
		},
	})
	proxy.SetDelay(3 * time.Millisecond)
	alone := ask(h, "GET", "/?metrics=true&pattern=models:*", "", "Bearer "+keyAll)
	require.NotContains(t, alone.Body.String(), `"total_keys":0`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 4)
	var counted atomic.Int64
	for _, key := range []string{keyRead, keyOld} {
		for range 2 {
			go func() {
				defer func() { done <- struct{}{} }()
				for ctx.Err() == nil {
					r := httptest.NewRequestWithContext(ctx, "POST", "/", strings.NewReader(`{"tags":["x"],"dry_run":true,"wait":30}`))
					r.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + key}}
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					if ctx.Err() == nil {
						counted.Add(1)
						time.Sleep(100 * time.Millisecond)
					}
				}
			}()
		}
	}
	listed := false
	for range 5 {
		w := ask(h, "GET", "/?metrics=true&pattern=models:*", "", "Bearer "+keyAll)
		if listed = counted.Load() > 0 && !strings.Contains(w.Body.String(), `"total_keys":0`); listed {
			break
		}
	}
	cancel()
	for range 4 {
		<-done
	}
	require.True(t, listed, "none of five listings has shown a key while others count")
}

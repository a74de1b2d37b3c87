package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

func TestEveryRouterServesTheHandlers(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	items := aside.Policy{Category: "items", TTL: time.Minute}
	for name, build := range routers {
		t.Run(name, func(t *testing.T) {
			c, err := aside.New(aside.Options{Policies: []aside.Policy{items}, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := aside.Set(context.Background(), c, items.Key(7), "value"); err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(build(handlersOf(c, asidehttp.Options{APIKeys: []aside.Secret{aside.NewSecret("the key of the test")}, Logger: quiet})))
			defer server.Close()
			for _, tt := range []struct {
				method, path, key, body string
				status                  int
				answer                  string
			}{
				{"GET", "/api/cache/health", "", "", 200, `"state":"memory"`},
				{"GET", "/api/cache/metrics", "", "", 401, `"status":401`},
				{"GET", "/api/cache/metrics?pattern=items:*", "the key of the test", "", 200, `"keys":["items:7"]`},
				{"POST", "/api/cache/metrics", "the key of the test", "{}", 405, `"status":405`},
				{"GET", "/api/cache/invalidate?metrics=true", "the key of the test", "", 200, `"metrics":{`},
				{"DELETE", "/api/cache/invalidate", "the key of the test", "", 405, `"status":405`},
				{"POST", "/api/cache/invalidate", "another key", `{"category":"items"}`, 401, `"status":401`},
				{"POST", "/api/cache/invalidate", "the key of the test", `{"category":"item"}`, 422, "items"},
				{"POST", "/api/cache/invalidate", "the key of the test", `{"keys":["items:7"]}`, 200, `"memory_entries":1`},
			} {
				r, err := http.NewRequest(tt.method, server.URL+tt.path, strings.NewReader(tt.body))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Content-Type", "application/json")
				if tt.key != "" {
					r.Header.Set("Authorization", "Bearer "+tt.key)
				}
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != tt.status || !strings.Contains(string(body), tt.answer) || resp.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s %s: %d %v %s, %v", tt.method, tt.path, resp.StatusCode, resp.Header, body, err)
				}
			}
			if _, err := aside.Get[string](context.Background(), c, items.Key(7)); err != aside.ErrMiss {
				t.Errorf("invalidated, and then: %v", err)
			}
		})
	}
}

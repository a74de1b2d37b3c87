package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const operatorKey = "an operator's key of the test"

// open starts a shop in memory.
func open(t *testing.T) (*shop, http.Handler) { return openWith(t, aside.Options{}) }

func openWith(t *testing.T, opts aside.Options) (*shop, http.Handler) {
	s, err := openStore(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.db.Close()) })
	opts.Secret = aside.NewSecret("a secret of the shop's test")
	shop, err := newShop(s, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, shop.cache.Close()) })
	return shop, shop.handler(aside.NewSecret(operatorKey))
}

// ask sends a request, and returns the status and the body.
func ask(t *testing.T, h http.Handler, method, target string, form url.Values) (int, string) {
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if strings.HasPrefix(target, "/admin/") {
		r.Header.Set("Authorization", "Bearer "+operatorKey)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func get[T any](t *testing.T, h http.Handler, target string) (v T) {
	status, body := ask(t, h, "GET", target, nil)
	require.Equal(t, http.StatusOK, status, body)
	require.NoError(t, json.Unmarshal([]byte(body), &v))
	return v
}

func TestAPageAndItsProductsAreCached(t *testing.T) {
	t.Parallel()
	shop, h := open(t)
	for range 3 {
		page := get[[]Product](t, h, "/suppliers/3/products")
		require.Len(t, page, 5)
		require.Equal(t, Product{ID: 3, Name: "product 3", Supplier: 3, Cents: 300, Stock: 3}, page[0])
		require.Equal(t, page[0], get[Product](t, h, "/products/3"))
	}
	require.Len(t, get[[]Product](t, h, "/suppliers/3/products?offset=8"), 2)
	labels := shop.cache.Metrics().Labels
	require.EqualValues(t, 2, labels["products"].Loads, "one for each page")
	require.EqualValues(t, 2, labels["pages"].Loads)
}

func TestANewPriceIsSeenEverywhere(t *testing.T) {
	t.Parallel()
	_, h := open(t)
	require.EqualValues(t, 3, get[[]Product](t, h, "/suppliers/3/products")[0].ID)
	status, _ := ask(t, h, "PUT", "/products/3/price", url.Values{"cents": {"99999"}})
	require.Equal(t, http.StatusOK, status)
	require.EqualValues(t, 13, get[[]Product](t, h, "/suppliers/3/products")[0].ID, "it is the most expensive one now")
	require.EqualValues(t, 99999, get[Product](t, h, "/products/3").Cents)
}

func TestOrdersChangeStockAndProfile(t *testing.T) {
	t.Parallel()
	_, h := open(t)
	const ada = "/customers/ada@example.com"
	require.Equal(t, Profile{Name: "Ada"}, get[Profile](t, h, ada))
	for range 3 {
		status, body := ask(t, h, "POST", ada+"/orders", url.Values{"product": {"7"}})
		require.Equal(t, http.StatusOK, status, body)
	}
	status, _ := ask(t, h, "POST", ada+"/orders", url.Values{"product": {"7"}})
	require.Equal(t, http.StatusConflict, status, "sold out")
	require.Zero(t, get[Product](t, h, "/products/7").Stock)
	require.Equal(t, Profile{Name: "Ada", Orders: 3, Cents: 2100}, get[Profile](t, h, ada))
}

// Redis goes away, and comes back: customers see no error, and no old price.
func TestAnOutageOfRedis(t *testing.T) {
	t.Parallel()
	redis := asidetest.NewRedis(t)
	here, h := openWith(t, redis.Options())
	require.NoError(t, here.cache.Ready(t.Context()))
	require.EqualValues(t, 300, get[Product](t, h, "/products/3").Cents)
	asidetest.Settled(t, here.cache)

	redis.Down()
	status, _ := ask(t, h, "PUT", "/products/3/price", url.Values{"cents": {"5"}})
	require.Equal(t, http.StatusOK, status)
	require.EqualValues(t, 5, get[Product](t, h, "/products/3").Cents)
	require.EqualValues(t, 4, get[Product](t, h, "/products/4").ID)

	redis.Up()
	asidetest.Settled(t, here.cache) // the invalidation is confirmed
	require.EqualValues(t, 5, get[Product](t, h, "/products/3").Cents)
}

func TestWhatClientsMayAskFor(t *testing.T) {
	t.Parallel()
	shop, h := open(t)
	for target, want := range map[string]int{
		"GET /products/999":                  http.StatusNotFound,
		"GET /products/x":                    http.StatusBadRequest,
		"GET /suppliers/3/products?offset=x": http.StatusBadRequest,
		"GET /customers/nobody@example.com":  http.StatusNotFound,
		"PUT /products/999/price?cents=1":    http.StatusNotFound,
		"PUT /products/3/price?cents=x":      http.StatusBadRequest,
		"GET /suppliers/77/products":         http.StatusOK,
		"GET /health":                        http.StatusOK,
		"GET /admin/metrics":                 http.StatusOK,
	} {
		method, path, _ := strings.Cut(target, " ")
		for range 2 {
			status, body := ask(t, h, method, path, nil)
			require.Equal(t, want, status, "%s: %s", target, body)
		}
	}
	keys := 0
	for info, err := range shop.cache.Keys(t.Context(), aside.Pattern{}) {
		require.NoError(t, err)
		require.NotContains(t, info.Key, "example.com")
		keys++
	}
	require.NotZero(t, keys)
}

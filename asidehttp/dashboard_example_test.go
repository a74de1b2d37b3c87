package asidehttp_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

var cardNumbers = regexp.MustCompile(`\b\d{16}\b`)

// An operator's page. Its key is an operator's, who may see values, but not the card numbers in them.
func ExampleDashboard() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	o := asidehttp.DashboardOptions{
		Options: asidehttp.Options{Keys: []asidehttp.Key{
			{Name: "operator", Secret: aside.NewSecret("an example key, 16 bytes at least"), Scopes: []asidehttp.Scope{asidehttp.ScopeRead, asidehttp.ScopeValues}},
		}},
		Name:   "gateway",
		Values: true,
		Redact: func(key string, v []byte) []byte { return cardNumbers.ReplaceAll(v, []byte("…")) },
	}
	if err := o.Validate(); err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/admin/cache/", asidehttp.Dashboard(c, o))

	// A browser opens http://host/admin/cache/.
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/admin/cache/", nil))
	fmt.Println(w.Code, w.Header().Get("Content-Type"))
	// Output: 200 text/html; charset=utf-8
}

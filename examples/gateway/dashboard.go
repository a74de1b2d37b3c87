package main

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/http"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// dashboardPath is where the operator's page is.
const dashboardPath = "/admin/cache/"

// dashboardOf returns the operator's page. It takes the keys of operators. Without any, a server that only this machine can reach makes a key for
// this run, and prints it; another server has no page.
func dashboardOf(cache *aside.Cache, operators *asidehttp.Options, at net.Addr) (h http.Handler, key string) {
	opts := asidehttp.DashboardOptions{Name: "gateway", Values: true}
	switch tcp, isTCP := at.(*net.TCPAddr); {
	case operators != nil:
		opts.Options = *operators
	case isTCP && tcp.IP.IsLoopback():
		key = rand.Text()
		opts.Keys = []asidehttp.Key{{Name: "this run", Secret: aside.NewSecret(key), Scopes: []asidehttp.Scope{asidehttp.ScopeAll}}}
	default:
		return nil, ""
	}
	return asidehttp.Dashboard(cache, opts), key
}

// pageLine says where the page is, and which key opens it.
func pageLine(base, key string, page bool) string {
	switch {
	case !page:
		return ""
	case key == "":
		return fmt.Sprintf("\nLook at the cache: %s%s, with CACHE_API_KEY or CACHE_READ_KEY\n", base, dashboardPath)
	}
	return fmt.Sprintf("\nLook at the cache: %s%s, with the key of this run: %s\n", base, dashboardPath, key)
}

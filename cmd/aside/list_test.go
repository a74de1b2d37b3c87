package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestList(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seed(t, server, map[string]product{"7": {"lamp"}}, "supplier 3")
	seed(t, server, map[string]product{"8": {strings.Repeat("chair ", 20)}})
	server.MustDo(t, "SET", "products:foreign", "another program's")
	on(server).requireDocumented(t, "list")

	var got struct {
		Values int
		Keys   []struct {
			Key  string
			Tags []string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(on(server).ok(t, "list", "-json")), &got))
	require.Equal(t, 2, got.Values)
	require.Equal(t, "products:7", got.Keys[0].Key)
	require.Equal(t, []string{"supplier 3"}, got.Keys[0].Tags)

	out := on(server).ok(t, "list", "products:*", "-n", "1")
	require.Contains(t, out, "1 of them not shown: -n 0 shows all")
	for _, by := range []string{"age", "ttl", "size", "key"} {
		require.Contains(t, on(server).ok(t, "list", "-sort", by), "2 values")
	}
	require.Contains(t, on(server).ok(t, "list", "nosuch:*"), "0 values")
}

func TestInvalidate(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seed(t, server, map[string]product{"7": {"lamp"}}, "supplier 3")
	on(server).requireDocumented(t, "invalidate")
	require.Contains(t, on(server).ok(t, "inspect", "products:7"), "served", "nothing on the page has -yes, but for a tag that is on no value")

	for i, selector := range [][]string{{"-key", "products:7"}, {"-tag", "supplier 3"}, {"-category", "products"}, {"-pattern", "products:*"}, {"-all"}} {
		seed(t, server, map[string]product{"7": {fmt.Sprint("lamp ", i)}}, "supplier 3")
		require.Contains(t, on(server).ok(t, append([]string{"invalidate"}, selector...)...), "would invalidate 1 value,", selector)
		require.Contains(t, on(server).ok(t, "inspect", "products:7"), "served", selector)

		out := on(server).ok(t, append([]string{"invalidate", "-yes", "-json"}, selector...)...)
		var got struct {
			Removed             int64
			Confirmed, Complete bool
		}
		require.NoError(t, json.Unmarshal([]byte(out), &got), out)
		require.True(t, got.Confirmed, selector)
		require.True(t, got.Complete, selector)
		require.EqualValues(t, 1, got.Removed, selector)
		_, _, code := on(server).run(t, "inspect", "products:7")
		require.Equal(t, exitFinding, code, selector)
	}
}

// A load that began before the invalidation is not stored after it, for every way to invalidate.
func TestInvalidateWinsAgainstALoadInFlight(t *testing.T) {
	t.Parallel()
	for _, selector := range [][]string{{"-key", "products:7"}, {"-tag", "supplier 3"}, {"-category", "products"}, {"-pattern", "products:7*"}, {"-all"}} {
		server := redistest.Start(t)
		c := asidetest.Connected(t, asidetest.Anonymously(server.Addr()))
		loading, released := make(chan struct{}), make(chan struct{})
		loaded := make(chan error, 1)
		go func() {
			_, err := aside.GetOrLoad(t.Context(), c, products.Key("7"), func(context.Context) (product, error) {
				close(loading)
				<-released
				return product{"old"}, nil
			}, aside.WithTags("supplier 3"))
			loaded <- err
		}()
		<-loading
		asidetest.Eventually(t, "the load has its lease", func() bool {
			n, err := server.Do("EXISTS", "{products:7}!l")
			return err == nil && n == int64(1)
		})
		require.Contains(t, on(server).ok(t, append([]string{"invalidate", "-yes"}, selector...)...), "invalidated and confirmed")
		close(released)
		require.NoError(t, <-loaded)
		require.NoError(t, c.Close())
		_, _, code := on(server).run(t, "inspect", "products:7")
		require.Equal(t, exitFinding, code, selector)
	}
}

func TestInvalidateRefuses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seed(t, server, map[string]product{"7": {"lamp"}})
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "give one of -key, -tag, -category, -pattern and -all"},
		{[]string{"-key", "products:7", "-all"}, exitUsage, "give one of -key"},
		{[]string{"products:7"}, exitUsage, `"products:7" is no flag`},
		{[]string{"-key", "products:a b*"}, exitUsage, "percent-escaped"},
		{[]string{"-key", ""}, exitUsage, "it is empty"},
		{[]string{"-tag", strings.Repeat("x", 600)}, exitUsage, "too long"},
		{[]string{"-category", "all"}, exitUsage, "or -all"},
		{[]string{"-pattern", "*"}, exitUsage, "does not begin with a category"},
		{[]string{"-category", "product", "-yes"}, exitFinding, "there is no category product in Redis, which has products: nothing was changed"},
	} {
		_, errs, code := on(server).run(t, append([]string{"invalidate"}, c.args...)...)
		require.Equal(t, c.code, code, c.args)
		require.Contains(t, errs, c.want, c.args)
	}
	require.Contains(t, on(server).ok(t, "inspect", "products:7"), "served")
	_, errs, code := on(server).run(t, "list", "-sort", "colour")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "it is key, size, age or ttl")
}

func TestInvalidateByTheAPI(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	onRedis, inMemory := asidetest.Anonymously(server.Addr()), aside.Options{}
	for mode, o := range map[string]*aside.Options{"redis": &onRedis, "memory": &inMemory} {
		o.Policies = []aside.Policy{products}
		c := asidetest.NewCache(t, *o)
		if mode == "redis" {
			asidetest.Eventually(t, "the cache connects", func() bool { return c.Health().State == aside.StateConnected })
		}
		url := serving(t, asidehttp.AdminHandler(c, asidehttp.Options{APIKeys: []aside.Secret{aside.NewSecret(asidetest.Canary)}, Logger: asidetest.Quiet()}).ServeHTTP)
		key := products.Key("7")
		for _, selector := range [][]string{{"-key", "products:7"}, {"-tag", "supplier 3"}, {"-category", "products"}, {"-pattern", "products:*"}, {"-all"}} {
			cached := func() bool {
				_, err := aside.Get[product](t.Context(), c, key)
				return err == nil
			}
			asidetest.Eventually(t, "the value is stored", func() bool {
				require.NoError(t, aside.Set(t.Context(), c, key, product{"lamp"}, aside.WithTags("supplier 3")))
				return cached()
			})
			args := append([]string{"invalidate", "-api", url}, selector...)
			require.Contains(t, withKey.ok(t, args...), "would invalidate 1 value; nothing was changed", "%s %v", mode, selector)
			asidetest.Eventually(t, "nothing was changed", cached)
			require.Contains(t, withKey.ok(t, append(args, "-yes")...), "invalidated and confirmed", "%s %v", mode, selector)
			require.False(t, cached(), "%s %v", mode, selector)
		}
		_, errs, code := withKey.run(t, "invalidate", "-api", url, "-category", "product", "-yes")
		require.Equal(t, exitFinding, code)
		require.Contains(t, errs, `there is no category "product"`)
	}
	_, errs, code := withKey.run(t, "invalidate", "-api", "http://localhost", "-redis", "redis://localhost", "-all")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "neither -redis nor -namespace")
	_, errs, code = withKey.run(t, "invalidate", "-all", "-api", serving(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
	require.Equal(t, exitFinding, code)
	require.Contains(t, errs, "none of asidehttp.AdminHandler")
}

func TestHash(t *testing.T) {
	t.Parallel()
	const secret = "0123456789abcdef" + asidetest.Canary
	c := asidetest.NewCache(t, aside.Options{Secret: aside.NewSecret(secret)})
	plain := asidetest.NewCache(t, aside.Options{})
	sh := shell{"ASIDE_SECRET=" + secret}
	require.Equal(t, c.HashID("alice")+"\n"+c.HashID("-x")+"\n", sh.ok(t, "hash", "alice", "--", "-x"))
	require.JSONEq(t, `{"alice":"`+c.HashID("alice")+`"}`, sh.ok(t, "hash", "-json", "alice"))
	out, errs, code := shell{}.run(t, "hash", "alice")
	require.Equal(t, []any{plain.HashID("alice") + "\n", exitOK}, []any{out, code})
	require.Contains(t, errs, "ASIDE_SECRET is not set")
	_, errs, code = shell{"ASIDE_SECRET=short"}.run(t, "hash", "alice")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "at least 16")
	_, _, code = sh.run(t, "hash")
	require.Equal(t, exitUsage, code)
}

package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestInspect(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seed(t, server, map[string]product{"7": product{"lamp"}}, "supplier 3")
	on(server).requireDocumented(t, "inspect")

	var got struct {
		Verdict string
		Tags    []struct{ Name string }
		Value   product
	}
	require.NoError(t, json.Unmarshal([]byte(on(server).ok(t, "inspect", "-json", "products:7")), &got))
	require.Equal(t, "served", got.Verdict)
	require.Len(t, got.Tags, 3)
	require.Equal(t, product{"lamp"}, got.Value)
	require.Equal(t, `{"Name":"lamp"}`, strings.TrimSpace(on(server).ok(t, "inspect", "products:7", "-raw")))

	out, errs, code := on(server).run(t, "inspect", "products:8", "-json")
	require.Equal(t, exitFinding, code, errs)
	require.Contains(t, out, `"verdict": "not cached"`)
	_, errs, code = on(server).run(t, "inspect", "products:8", "-raw")
	require.Equal(t, exitFinding, code)
	require.Contains(t, errs, "no value: not cached")
}

func TestInspectAnInvalidatedValue(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seed(t, server, map[string]product{"7": product{"lamp"}}, "supplier 3")
	// As an invalidation leaves it before the value is removed.
	g := server.MustDo(t, "GET", "%t:supplier 3").(string)
	server.MustDo(t, "SET", "%t:supplier 3", g[:len(g)-1]+"x")
	out, _, code := on(server).run(t, "inspect", "products:7")
	require.Equal(t, exitFinding, code)
	require.Contains(t, out, "invalidated by a tag or its category")
	require.Contains(t, out, "tag supplier 3: "+g+", and now none")
}

func TestInspectALargeValue(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	large := asidetest.Large(1 << 20)
	seed(t, server, map[string][]byte{"large": large})
	out := on(server).ok(t, "inspect", "products:large", "-most", "100")
	require.Contains(t, out, "the value is 1048576, in 4 chunks")
	require.Contains(t, out, "more bytes: -most ")
	require.Equal(t, string(large), on(server).ok(t, "inspect", "products:large", "-raw"))
	require.NotContains(t, on(server).ok(t, "inspect", "products:large", "-most", "0"), "00000000")
}

// A key, a tag and a value can hold anything. None of it reaches the terminal as a command.
func TestInspectHostileNames(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seed(t, server, map[string]string{"7": "\x1b]0;owned\a\u202e"}, "a\x1b[31mb")
	out := on(server).ok(t, "inspect", "products:7")
	require.NotContains(t, out, "\x1b")
	require.NotContains(t, out, "\u202e")
	require.Contains(t, out, `tag a\x1b[31mb`)
	out, _, code := on(server).run(t, "inspect", "products:\x1b[31m\nverdict  served")
	require.Equal(t, exitFinding, code)
	require.NotContains(t, out, "\x1b")
	require.Contains(t, out, `products:\x1b[31m\nverdict  served`)

	seed(t, server, map[string]string{"8": "\u009b31m"}, "a\u009b31mb")
	out = on(server).ok(t, "list", "-json")
	require.True(t, json.Valid([]byte(out)), "%s", out)
	require.NotContains(t, out, "\u009b")
	require.Contains(t, out, `a\u009b31mb`)
}

func TestInspectInANamespace(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := asidetest.Anonymously(server.Addr())
	o.Namespace = "shop"
	c := asidetest.Connected(t, o)
	asidetest.Eventually(t, "the value is stored", func() bool {
		require.NoError(t, aside.Set(t.Context(), c, products.Key("7"), product{"lamp"}))
		n, err := server.Do("EXISTS", "shop%:products:7")
		return err == nil && n == int64(1)
	})
	for _, key := range []string{"products:7", "shop%:products:7"} {
		require.Contains(t, on(server).ok(t, "inspect", "-namespace", "shop", key), "served")
	}
}

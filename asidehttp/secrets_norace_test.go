//go:build !race

package asidehttp_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// What prints a cache reads fields that others may write meanwhile, which the race detector would tell.

// A Cache prints no secret, also where the password is in the options of the client library.
func TestACachePrintsNoSecret(t *testing.T) {
	t.Parallel()
	c, err := aside.New(aside.Options{
		Redis:  rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}, Username: "canary-user", Password: "canary-password"},
		Secret: aside.NewSecret("canary-of-sixteen-bytes"), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	require.NoError(t, c.Close()) // or its goroutines would work in what is printed below
	type holder struct {
		Public *aside.Cache
		c      *aside.Cache
		any    any
	}
	var all bytes.Buffer
	for _, v := range []any{c, holder{c, c, c}, &holder{c, c, c}, []*aside.Cache{c}, map[string]*aside.Cache{"x": c}, aside.NewLoader(c, aside.TTL.ModelsAll, func(_ context.Context, id string) (string, error) { return "", nil })} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&all, verb+"\n", v)
		}
		slog.New(slog.NewJSONHandler(&all, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&all, nil)).Info("x", "v", v)
	}
	require.NotContains(t, all.String(), "canary")
}

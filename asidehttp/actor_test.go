package asidehttp_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// Whoever asks the cache for its last invalidations sees which key has sent them, and no key's secret.
func TestTheNameOfAKeyIsTheActorOfItsOrders(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{Policies: []aside.Policy{aside.TTL.ModelsAll}})
	h := asidehttp.AdminHandler(c, options(io.Discard))
	for _, order := range []struct{ key, body string }{
		{keyChange, `{"keys":["models:all:all"]}`}, {keyAll, `{"category":"models"}`}, {keyHashed, `{"tags":["supplier 3"]}`},
	} {
		require.Equal(t, http.StatusOK, ask(h, "POST", "/", order.body, "Bearer "+order.key).Code)
	}
	require.Equal(t, http.StatusForbidden, ask(h, "POST", "/", `{"category":"all"}`, "Bearer "+keyRead).Code)
	var kinds, actors []string
	for _, e := range c.Recent().Invalidations {
		kinds, actors = append(kinds, e.Kind), append(actors, e.Actor)
	}
	require.Equal(t, []string{"keys", "category", "tags"}, kinds)
	require.Equal(t, []string{"deploy", "sha256:25573a38", "hashed"}, actors)
	requireHidden(t, c.Recent(), "Recent")
}

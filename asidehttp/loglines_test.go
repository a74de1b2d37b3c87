package asidehttp_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

func TestWhyNobodyGetsInIsLogged(t *testing.T) {
	t.Parallel()
	for line, keys := range map[string][]asidehttp.Key{
		"asidehttp: refused: no valid key":                         {{Name: "a", Secret: aside.NewSecret(keyRead), Scopes: []asidehttp.Scope{asidehttp.ScopeRead}}},
		"asidehttp: no key is configured: every request is denied": nil,
		"asidehttp: invalid options ignored, they grant no access": {{Secret: aside.NewSecret(keyRead)}},
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			var log output
			h := asidehttp.AdminHandler(newCache(t, aside.Options{}), asidehttp.Options{Keys: keys, Logger: log.logger()})
			r := httptest.NewRequest(http.MethodGet, "/?metrics=true", nil)
			r.Header.Set("Authorization", "Bearer "+keyWrong)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, http.StatusUnauthorized, w.Code)
			logged(t, &log, line, 1)
			require.Equal(t, 1, strings.Count(log.String(), line), "%s", log.String())
		})
	}
}

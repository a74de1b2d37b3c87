package asidetest

import (
	"strings"
	"testing"

	"github.com/gatewayz/aside/internal/redistest"
)

// Info returns one figure of the server's statistics.
func Info(t *testing.T, server *redistest.Server, name string) string {
	t.Helper()
	for line := range strings.Lines(server.MustDo(t, "INFO").(string)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			return v
		}
	}
	t.Fatal("no " + name)
	return ""
}

package asidetest

import (
	"testing"

	"github.com/gatewayz/aside/internal/redistest"
)

// StartUntracked starts a server that cannot tell of changes.
func StartUntracked(t *testing.T) *redistest.Server {
	return redistest.Start(t, "--rename-command", "CLIENT", "")
}

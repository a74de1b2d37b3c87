package asidetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

func ItemKey(id int) aside.Key { return Items.Key(id) }

// Commands returns how often the server has run a command, by its own account.
func Commands(t *testing.T, server *redistest.Server, name string) (calls int) {
	t.Helper()
	for line := range strings.Lines(server.MustDo(t, "INFO", "commandstats").(string)) {
		if stats, ok := strings.CutPrefix(line, "cmdstat_"+name+":calls="); ok {
			_, err := fmt.Sscanf(stats, "%d,", &calls)
			require.NoError(t, err)
		}
	}
	return calls
}

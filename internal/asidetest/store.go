package asidetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// Stored loads a value and waits until it is in Redis.
func Stored[T any](t *testing.T, c *aside.Cache, key aside.Key, value T) {
	t.Helper()
	require.NoError(t, aside.Set(t.Context(), c, key, value))
}

// The processes below are this test binary, run again.

func processCache() *aside.Cache {
	o := At(getenv("ADDR"))
	o.Logger, o.Backoff = Quiet(), time.Minute // longer than a busy machine keeps a caller waiting for its turn
	return open(o)
}

func readerProcess() {
	c := processCache()
	defer c.Close()
	v, err := aside.Get[string](context.Background(), c, Items.Key("shared"))
	fmt.Println(v, err)
}

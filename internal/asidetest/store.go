package asidetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// Stored sets a value, again where Redis was too slow to take it: Set returns nil then, too.
func Stored[T any](t testing.TB, c *aside.Cache, key aside.Key, value T, opts ...aside.CallOption) {
	t.Helper()
	Repeatedly(t, key.String()+" is stored", func() bool {
		before := NotStored(c)
		require.NoError(t, aside.Set(t.Context(), c, key, value, opts...))
		return NotStored(c) == before
	})
}

// NotStored counts what was not stored, and what else of Redis has failed.
func NotStored(c *aside.Cache) (n uint64) {
	for _, m := range c.Metrics().Labels {
		n += m.RedisErrors + m.FillsRejected
	}
	return n
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

package near

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/freshness"
)

// held is the sum of what is in the cache, counted one by one.
func held(c *Cache) (bytes int64) {
	for _, e := range c.store.All() {
		bytes += e.Size
	}
	return bytes
}

// However entries come and go, the bytes are those of the entries that are there.
func TestTheUsageIsThatOfTheEntries(t *testing.T) {
	t.Parallel()
	clock := NewClock()
	defer clock.Stop()
	c := New(Options{MaxEntries: 100, MaxBytes: 10_000}, clock)
	defer c.Close()
	scope := &Scope{Validities: []*Validity{new(Validity)}}
	var goroutines sync.WaitGroup
	for range 4 {
		goroutines.Go(func() {
			for range 5000 {
				key := fmt.Sprint(rand.IntN(300))
				e := &Entry{Value: new(int), Scope: scope, Until: clock.Now() + int64(time.Hour), LoadedAt: clock.Now(), Size: rand.Int64N(400)}
				switch rand.IntN(6) {
				case 0:
					c.Put(key, e)
				case 1:
					c.Delete(key)
				case 2:
					e.Plan = &Plan{Payload: [12]byte{1}, Times: freshness.Plain(e.Until)}
					c.Put(key, e)
					c.Postpone(key, e, clock.Now())
				case 3:
					c.Push(key)
				default:
					f := c.Fence(key, nil)
					c.Insert(key, e, f)
					f.End()
				}
			}
		})
	}
	goroutines.Wait()
	c.store.CleanUp()
	u := c.Usage()
	require.Equal(t, held(c), u.Bytes)
	require.Equal(t, 100, u.MaxEntries)
	require.EqualValues(t, 10_000, u.MaxBytes)
	require.NotZero(t, u.Evictions)
	require.NotZero(t, u.EvictedBytes)
	for key := range c.store.All() {
		c.Delete(key)
	}
	require.Zero(t, c.Usage().Bytes)
	require.Zero(t, c.Usage().Entries)
}

package contract_test

import (
	"context"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// A ceiling is how many allocations one call of a kind may make, those of the goroutines that answer it included. It is a little above what was
// measured. A change that makes a call cheaper lowers its ceiling. A hit in memory makes none: see TestAHitInMemoryAllocatesNothing.
type ceiling struct {
	name string
	most float64
	per  int // ids of one call
	call func(ctx context.Context, c *aside.Cache, id int) error
}

type ceilingItem struct {
	ID    int
	Name  string
	Price float64
}

func TestCeilingsOfAllocations(t *testing.T) {
	if asidetest.RaceDetector {
		t.Skip("the race detector allocates too")
	}
	const ids, batch = 400, 100
	server := redistest.Start(t)
	options := asidetest.At(server.Addr())
	options.OpTimeout = time.Minute    // a call that falls back to its loader does other work
	options.Logger = asidetest.Quiet() // which does not want to see each miss
	policy := asidetest.Items
	load := func(context.Context) (*ceilingItem, error) { return &ceilingItem{Name: "name"}, nil }
	noLoad := func(context.Context) (*ceilingItem, error) { panic("a load of a value that is cached") }
	filler := asidetest.Connected(t, options)
	for id := range ids {
		asidetest.Stored(t, filler, policy.Key(id), &ceilingItem{ID: id, Name: "name"})
	}
	for _, of := range []ceiling{
		{"first read from Redis", 38, 1, func(ctx context.Context, c *aside.Cache, id int) error {
			_, err := aside.GetOrLoad(ctx, c, policy.Key(id), noLoad)
			return err
		}},
		{"Strong", 49, 1, func(ctx context.Context, c *aside.Cache, id int) error {
			_, err := aside.GetOrLoad(ctx, c, policy.Key(id), noLoad, aside.Strong())
			return err
		}},
		{"miss", 84, 1, func(ctx context.Context, c *aside.Cache, id int) error {
			_, err := aside.GetOrLoad(ctx, c, policy.Key("new", id), load)
			return err
		}},
		{"batch of 100 first reads, per id", 22, batch, func(ctx context.Context, c *aside.Cache, id int) error {
			many := make([]int, batch)
			for i := range many {
				many[i] = id + i
			}
			_, err := aside.GetOrLoadMany(ctx, c, many, func(id int) aside.Key { return policy.Key(id) }, func(context.Context, []int) (map[int]*ceilingItem, error) {
				panic("a load of a value that is cached")
			})
			return err
		}},
	} {
		t.Run(of.name, func(t *testing.T) {
			least := math.Inf(1)
			for range 3 { // the least of some rounds: the collector and the heartbeat allocate too
				c := asidetest.Connected(t, options)
				_, err := aside.Get[*ceilingItem](t.Context(), c, policy.Key("to know the tags"))
				require.ErrorIs(t, err, aside.ErrMiss)
				_, err = aside.GetOrLoad(t.Context(), c, policy.Key("new"), load)
				require.NoError(t, err)
				least = min(least, allocations(t, ids, of, c))
				require.NoError(t, c.Close())
				_, err = filler.InvalidatePattern(t.Context(), policy.Match("new", aside.Wildcard))
				require.NoError(t, err)
			}
			most := of.most
			if asidetest.InCluster { // commands are grouped by their nodes
				most *= 1.25
			}
			t.Logf("%.1f allocations, at most %.0f", least, most)
			require.LessOrEqual(t, least, most)
		})
	}
}

// allocations returns how many allocations one id takes on average.
func allocations(t *testing.T, ids int, of ceiling, c *aside.Cache) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for id := 0; id < ids; id += of.per {
		if err := of.call(t.Context(), c, id); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(ids)
}

package aside

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/stats"
)

func TestNothingGrowsWithPoliciesBuiltAnew(t *testing.T) {
	t.Parallel()
	c, err := New(Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer c.Close()
	before := len(*c.policies.byName.Load())
	for range 1000 {
		p := &Policy{Name: "anew", Category: "a", TTL: time.Hour}
		require.NoError(t, Set(t.Context(), c, p.Key("x"), "v"))
		wrong := &Policy{Name: "wrong", Category: "a"}
		require.Error(t, Set(t.Context(), c, wrong.Key("x"), "v"))
	}
	require.Len(t, *c.policies.byName.Load(), before+1)
}

func TestEveryFieldOfTheTableIsPredeclaredUnderItsName(t *testing.T) {
	t.Parallel()
	table := reflect.ValueOf(&TTL).Elem()
	require.Equal(t, table.NumField(), len(predeclared()))
	for i, p := range predeclared() {
		require.Equal(t, table.Type().Field(i).Name, p.Name)
		require.Same(t, table.Field(i).Addr().Interface(), p)
	}
}

// A field that equal forgets would let two different policies share a name.
func TestEqualKnowsEveryFieldOfAPolicy(t *testing.T) {
	t.Parallel()
	base := Policy{Name: "p", Category: "c", TTL: time.Hour}
	require.True(t, base.equal(&Policy{Name: "p", Category: "c", TTL: time.Hour}))
	other := map[string]any{
		"Name": "q", "Category": "d", "Label": "l", "TTL": time.Minute, "NegativeTTL": time.Minute, "DegradedTTL": time.Minute,
		"Stale": time.Minute, "StaleIfError": time.Minute, "SoftTimeout": time.Minute, "RefreshAhead": 0.2,
		"LoadTimeout": time.Minute, "LoadGrace": time.Minute, "Version": 2, "MaxBatch": 5, "NotFound": []error{io.EOF}, "Place": PlaceRedis, "MemoryTTL": time.Minute, "Jitter": 0.5, "Codec": CBOR, "CloneOnRead": true,
	}
	fields := reflect.TypeFor[Policy]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		require.Contains(t, other, name, "a new field: say here what else it can be")
		changed := base
		reflect.ValueOf(&changed).Elem().Field(i).Set(reflect.ValueOf(other[name]))
		require.False(t, base.equal(&changed), name)
	}
}

// tenant is one of very many policies.
func tenant(i int) *Policy {
	name := "tenant " + strconv.Itoa(i)
	return &Policy{Name: name, Category: name, TTL: time.Hour}
}

func TestAPolicyForEachTenantFillsNoTable(t *testing.T) {
	t.Parallel()
	const tenants, entries = 20_000, 100
	c, err := New(Options{MaxEntries: entries, Policies: []Policy{{Name: "listed", Category: "l", TTL: time.Hour}}})
	require.NoError(t, err)
	defer c.Close()
	for i := range tenants {
		require.NoError(t, Set(t.Context(), c, tenant(i).Key("x"), i))
		if i%5000 == 0 {
			runtime.GC()
		}
	}
	runtime.GC()
	runtime.GC()                          // what a collection under way has marked before
	for i := range 2 * mostPoliciesHeld { // the table is looked through when it has grown
		require.NoError(t, Set(t.Context(), c, tenant(tenants+i).Key("x"), i))
	}
	require.LessOrEqual(t, len(c.Policies()), 20+mostPoliciesMet+4*mostPoliciesHeld)
	require.LessOrEqual(t, len(c.Metrics().Labels), stats.MostLabels+1)
	require.EqualValues(t, 0, c.Metrics().Labels[stats.OtherLabels].Hits)

	names := make(map[string]bool)
	for _, p := range c.Policies() {
		names[p.Name] = true
	}
	for _, p := range []*Policy{tenant(0), tenant(mostPoliciesMet - 1), {Name: "listed"}} {
		require.True(t, names[p.Name], "%s stays", p.Name)
	}
}

func TestAPolicyIsKeptInMindWhileMemoryHasSomethingOfIt(t *testing.T) {
	t.Parallel()
	const tenants = 5000
	c, err := New(Options{})
	require.NoError(t, err)
	defer c.Close()
	for i := range tenants {
		require.NoError(t, Set(t.Context(), c, tenant(i).Key("x"), i))
	}
	runtime.GC()
	runtime.GC()
	for i := range tenants {
		p := tenant(i)
		r, err := Lookup(t.Context(), c, p.Key("x"), func(context.Context) (int, error) { return -1, nil })
		require.NoError(t, err)
		require.Equal(t, StatusHit, r.Status, "%d", i)
		require.Equal(t, i, r.Value)
		p.TTL = time.Minute
		require.ErrorIs(t, Set(t.Context(), c, p.Key("y"), i), &Error{Code: CodeInvalidOption}, "another policy of that name")
	}
	labels := c.Metrics().Labels
	require.Len(t, labels, stats.MostLabels+1)
	require.EqualValues(t, 1, labels["tenant 0"].Hits)
	require.EqualValues(t, tenants-stats.MostLabels, labels[stats.OtherLabels].Hits)
	require.ElementsMatch(t, slices.Collect(maps.Keys(labels)), c.Labels(), "no label of a policy that is counted under another one")
}

func TestListedPoliciesHaveTheirOwnLabels(t *testing.T) {
	t.Parallel()
	var o Options
	for i := range 2 * stats.MostLabels {
		o.Policies = append(o.Policies, *tenant(i))
	}
	c, err := New(o)
	require.NoError(t, err)
	defer c.Close()
	for i := range 2*stats.MostLabels + 1 {
		require.NoError(t, Set(t.Context(), c, tenant(i).Key("x"), i))
		_, err := Get[int](t.Context(), c, tenant(i).Key("x"))
		require.NoError(t, err)
	}
	require.Len(t, c.Metrics().Labels, 2*stats.MostLabels+1)
}

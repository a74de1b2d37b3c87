package aside

import (
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNothingGrowsWithPoliciesBuiltAnew(t *testing.T) {
	t.Parallel()
	c, err := New(Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer c.Close()
	before := len(*c.plans.byName.Load())
	for range 1000 {
		p := &Policy{Name: "anew", Category: "a", TTL: time.Hour}
		require.NoError(t, Set(t.Context(), c, p.Key("x"), "v"))
		wrong := &Policy{Name: "wrong", Category: "a"}
		require.Error(t, Set(t.Context(), c, wrong.Key("x"), "v"))
	}
	require.Len(t, *c.plans.byName.Load(), before+1)
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
		"LoadTimeout": time.Minute, "Jitter": 0.5, "Codec": MessagePack, "Private": true,
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

package asidetest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidetest"
)

func TestLoadsAreCounted(t *testing.T) {
	t.Parallel()
	load, loads := asidetest.Counted(loadName)
	loads.Expect(t)
	loader := aside.NewLoader(asidetest.New(t, aside.Options{}), products, load)
	for _, id := range []int{7, 8, 7} {
		v, err := loader.Get(t.Context(), id)
		require.NoError(t, err)
		require.Contains(t, v, "product")
	}
	loads.Expect(t, 8, 7)
	loads.Expect(t)
	calls := loads.Calls()
	require.Equal(t, [][]int{{7}, {8}}, calls)
	calls[0][0] = 9
	require.Equal(t, [][]int{{7}, {8}}, loads.Calls(), "what Calls returns is the test's own")
}

func TestLoadsOfBatchesAreCounted(t *testing.T) {
	t.Parallel()
	load, loads := asidetest.CountedBatch(func(_ context.Context, ids []string) (map[string]int, error) {
		values := map[string]int{}
		for i, id := range ids {
			values[id] = i
			ids[i] = "changed" // the loader may use the slice as it likes
		}
		return values, nil
	})
	loader := aside.NewBatchLoader(asidetest.New(t, aside.Options{}), products, load)
	_, err := loader.GetMany(t.Context(), []string{"a", "b"})
	require.NoError(t, err)
	_, err = loader.GetMany(t.Context(), []string{"a", "c"})
	require.NoError(t, err)
	require.Len(t, loads.Calls(), 2)
	require.ElementsMatch(t, []string{"a", "b"}, loads.Calls()[0])
	loads.Expect(t, "a", "b", "c")
}

func TestAFailedLoadIsCounted(t *testing.T) {
	t.Parallel()
	wrong := errors.New("the database is away")
	load, loads := asidetest.Counted(func(context.Context, int) (string, error) { return "", wrong })
	_, err := load(t.Context(), 7)
	require.ErrorIs(t, err, wrong)
	loads.Expect(t, 7)
}

func TestExpectSaysHowTheLoadsDiffer(t *testing.T) {
	t.Parallel()
	const prefix = "asidetest: the loads since the last Expect are not as expected: "
	for _, c := range []struct {
		loaded, expected []string
		failure          string
	}{
		{nil, nil, ""},
		{[]string{"a", "b", "a"}, []string{"a", "a", "b"}, ""},
		{[]string{"a"}, nil, prefix + `"a" was loaded once, want not loaded`},
		{nil, []string{"a"}, prefix + `"a" was not loaded, want loaded once`},
		{[]string{"b", "a", "a"}, []string{"a"}, prefix + `"b" was loaded once, want not loaded; "a" was loaded twice, want loaded once`},
		{[]string{"a", "a", "a"}, []string{"b", "a"}, prefix + `"a" was loaded 3 times, want loaded once; "b" was not loaded, want loaded once`},
	} {
		load, loads := asidetest.Counted(func(context.Context, string) (int, error) { return 0, nil })
		for _, id := range c.loaded {
			_, _ = load(t.Context(), id)
		}
		tb := &fakeTB{TB: t}
		loads.Expect(tb, c.expected...)
		require.Equal(t, c.failure, tb.failed())
	}
	load, loads := asidetest.Counted(loadName)
	_, _ = load(t.Context(), 7)
	tb := &fakeTB{TB: t}
	loads.Expect(tb, 8)
	require.Equal(t, prefix+"7 was loaded once, want not loaded; 8 was not loaded, want loaded once", tb.failed())
}

package contract_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// A page is an id of several parts.
type page struct{ Limit, Offset int }

func pageKey(p *aside.Policy, q page) aside.Key { return p.Key("list", q.Limit, q.Offset) }

var others = aside.Policy{Name: "others", Category: "items", TTL: time.Hour}

// An idAsBytes is an id as of a UUID: no string and no integer.
type idAsBytes [16]byte

func TestALoaderTakesIdsOfAnyType(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		var loads atomic.Int64
		pages := aside.NewLoaderBy(c, asidetest.Items, pageKey, func(_ context.Context, q page) (string, error) {
			loads.Add(1)
			if q.Limit == 0 {
				return "", aside.ErrNotFound
			}
			return fmt.Sprint(q.Limit, " from ", q.Offset), nil
		})
		require.Equal(t, "items:list:50:0", pages.Key(page{50, 0}).String())
		for range 2 {
			v, err := pages.Get(ctx, page{50, 0})
			require.NoError(t, err)
			require.Equal(t, "50 from 0", v)
		}
		require.EqualValues(t, 1, loads.Load())
		got, err := pages.GetMany(ctx, []page{{50, 0}, {50, 50}, {0, 0}})
		require.NoError(t, err)
		require.Equal(t, map[page]string{{50, 0}: "50 from 0", {50, 50}: "50 from 50"}, got)
		r, err := pages.Lookup(ctx, page{50, 50})
		require.NoError(t, err)
		require.Equal(t, "50 from 50", r.Value)

		byBytes := aside.NewBatchLoaderBy(c, others, func(p *aside.Policy, id idAsBytes) aside.Key { return p.Key(fmt.Sprintf("%x", id)) },
			func(_ context.Context, ids []idAsBytes) (map[idAsBytes]byte, error) {
				got := make(map[idAsBytes]byte)
				for _, id := range ids {
					got[id] = id[0]
				}
				return got, nil
			})
		asidetest.Repeatedly(t, "the value is stored before it is removed", func() bool {
			b, err := byBytes.Get(ctx, idAsBytes{7})
			require.NoError(t, err)
			require.EqualValues(t, 7, b)
			receipt, err := byBytes.Invalidate(ctx, idAsBytes{7})
			require.NoError(t, err)
			return receipt.Removed == 1
		})
	})
}

// The loader gets the id itself, which a key need not show.
func TestAKeyFunctionMayHashTheId(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{Secret: aside.NewSecret("a secret of at least 16 bytes")})
	users := aside.NewLoaderBy(c, asidetest.Items, func(p *aside.Policy, id string) aside.Key { return p.Key(c.HashID(id)) },
		func(_ context.Context, id string) (string, error) { return "profile of " + id, nil })
	v, err := users.Get(t.Context(), "alice@example.com")
	require.NoError(t, err)
	require.Equal(t, "profile of alice@example.com", v)
	require.NotContains(t, users.Key("alice@example.com").String(), "alice")
}

func TestALoaderStoresRefreshesAndLooks(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		var loads atomic.Int64
		pages := aside.NewLoaderBy(c, asidetest.Items, pageKey, func(_ context.Context, q page) (string, error) {
			if q.Limit == 0 {
				return "", aside.ErrNotFound
			}
			return fmt.Sprint("load ", loads.Add(1)), nil
		})
		_, err := pages.Cached(ctx, page{1, 1})
		require.ErrorIs(t, err, aside.ErrMiss)
		require.NoError(t, pages.Set(ctx, page{1, 1}, "set", aside.WithTTL(time.Minute)))
		v, err := pages.Cached(ctx, page{1, 1})
		require.NoError(t, err)
		require.Equal(t, "set", v)
		v, err = pages.Refresh(ctx, page{1, 1})
		require.NoError(t, err)
		require.Equal(t, "load 1", v)
		v, err = pages.Get(ctx, page{1, 1})
		require.NoError(t, err)
		require.Equal(t, "load 1", v)

		require.NoError(t, pages.SetMany(ctx, map[page]string{{2, 0}: "two", {3, 0}: "three"}, aside.WithTTL(time.Minute)))
		results, err := pages.LookupMany(ctx, []page{{2, 0}, {3, 0}, {0, 0}, {4, 0}, {2, 0}})
		require.NoError(t, err)
		require.Len(t, results, 4)
		require.Equal(t, "two", results[page{2, 0}].Value)
		require.Equal(t, aside.StatusHit, results[page{2, 0}].Status)
		require.LessOrEqual(t, results[page{2, 0}].TTL, time.Minute)
		require.Equal(t, "three", results[page{3, 0}].Value)
		require.True(t, results[page{0, 0}].Negative, "an id that is not found")
		require.Equal(t, aside.StatusMiss, results[page{4, 0}].Status)
		require.Equal(t, aside.TierOrigin, results[page{4, 0}].Tier)
	})
}

func TestAWrongKeyFunctionIsAnErrorThatNamesThePolicy(t *testing.T) {
	t.Parallel()
	c, ctx := asidetest.NewCache(t, aside.Options{}), t.Context()
	load := func(context.Context, page) (string, error) { panic("the loader is called") }
	for name, of := range map[string]struct {
		key  func(*aside.Policy, page) aside.Key
		says string
	}{
		"nil":            {nil, "the key function is nil"},
		"panic":          {func(*aside.Policy, page) aside.Key { panic("alice") }, "panicked: with a string"},
		"index":          {func(p *aside.Policy, q page) aside.Key { return p.Key([]int{}[q.Limit]) }, "index out of range"},
		"zero":           {func(*aside.Policy, page) aside.Key { return aside.Key{} }, "the zero Key"},
		"another policy": {func(_ *aside.Policy, q page) aside.Key { return others.Key(q.Limit) }, "a key of policy others"},
		"without a part": {func(p *aside.Policy, _ page) aside.Key { return p.Key() }, "without a part"},
		"invalid part":   {func(p *aside.Policy, q page) aside.Key { return p.Key(q) }, "contract_test.page"},
	} {
		t.Run(name, func(t *testing.T) {
			l := aside.NewLoaderBy(c, asidetest.Items, of.key, load)
			check := func(err error) {
				t.Helper()
				require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidKey})
				require.ErrorContains(t, err, of.says)
				require.ErrorContains(t, err, "items")
				require.NotContains(t, err.Error(), "alice")
			}
			_, err := l.Get(ctx, page{})
			check(err)
			_, err = l.Lookup(ctx, page{})
			check(err)
			_, err = l.GetMany(ctx, []page{{}})
			check(err)
			_, err = l.LookupMany(ctx, []page{{}})
			check(err)
			_, err = l.Cached(ctx, page{})
			check(err)
			_, err = l.Invalidate(ctx, page{})
			check(err)
			_, err = l.Refresh(ctx, page{})
			check(err)
			check(l.Set(ctx, page{}, "value"))
			check(l.SetMany(ctx, map[page]string{{}: "value"}))
			check(l.Key(page{}).Err())
			_, err = l.Warm(ctx, slices.Values([]page{{}}), aside.Warming{})
			check(err)
		})
	}
	var none *aside.Loader[page, string]
	_, err := none.Cached(ctx, page{})
	require.Error(t, err)
	require.Error(t, none.Set(ctx, page{}, "value"))
	require.Error(t, none.SetMany(ctx, map[page]string{{}: "value"}))
	_, err = none.LookupMany(ctx, []page{{}})
	require.Error(t, err)
	_, err = none.Refresh(ctx, page{})
	require.Error(t, err)
}

func TestAHitByAKeyFunctionAllocatesNothing(t *testing.T) {
	c := asidetest.NewCache(t, aside.Options{})
	pages := aside.NewLoaderBy(c, asidetest.Items, pageKey, func(_ context.Context, q page) (int, error) { return q.Limit, nil })
	ctx := context.Background()
	_, err := pages.Get(ctx, page{1000, 2000})
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if v, err := pages.Get(ctx, page{1000, 2000}); v != 1000 || err != nil {
			panic(err)
		}
	}))
}

// portions notes how many ids each call of a loader got.
type portions struct {
	mu    sync.Mutex
	sizes []int
}

func (p *portions) note(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sizes = append(p.sizes, n)
}

func someIDs(n int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = i
	}
	return ids
}

func TestABatchLoaderGetsAtMostMaxBatchIds(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, policy := newCache(aside.Options{}), asidetest.Items
		policy.MaxBatch = 3
		var calls portions
		own := errors.New("the second statement fails")
		loader := aside.NewBatchLoader(c, policy, func(ctx context.Context, ids []int) (map[int]int, error) {
			calls.note(len(ids))
			values := make(map[int]int)
			for _, id := range ids {
				values[id] = id * id
				if id == 1 { // a word for one id of the first portion, and for one of the last
					aside.CurrentLoad(ctx).Of(policy.Key(1)).TTL(time.Second)
					aside.CurrentLoad(ctx).Of(policy.Key(7)).TTL(time.Minute)
				}
			}
			if slices.Contains(ids, 4) {
				return nil, own
			}
			return values, nil
		})
		values, err := loader.GetMany(t.Context(), someIDs(8))
		require.ErrorIs(t, err, own)
		require.Equal(t, map[int]int{0: 0, 1: 1, 2: 4, 6: 36, 7: 49}, values, "the ids of the other statements have their values")
		require.Equal(t, []int{3, 3, 2}, calls.sizes)
		results, err := loader.LookupMany(t.Context(), []int{0, 1, 7})
		require.NoError(t, err)
		require.LessOrEqual(t, results[1].TTL, time.Second)
		require.Greater(t, results[7].TTL, time.Second)
		require.LessOrEqual(t, results[7].TTL, time.Minute)
		require.Greater(t, results[0].TTL, time.Minute)
	})
}

// The smallest MaxBatch of the missing ids' policies counts.
func TestMaxBatchOfSeveralPolicies(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	small, large := asidetest.Items, others
	small.MaxBatch, large.MaxBatch = 2, 4
	var calls portions
	_, err := aside.GetOrLoadMany(t.Context(), c, someIDs(5), func(id int) aside.Key {
		if id == 0 {
			return small.Key(id)
		}
		return large.Key(id)
	}, func(_ context.Context, ids []int) (map[int]int, error) {
		calls.note(len(ids))
		return nil, nil
	})
	require.NoError(t, err)
	require.Equal(t, []int{2, 2, 1}, calls.sizes)
}

// Each id that is loaded by itself has a Load of its own, in whatever portion it is.
func TestIdsLoadedOneByOneHaveLoadsOfTheirOwnInPortions(t *testing.T) {
	t.Parallel()
	c, policy := asidetest.NewCache(t, aside.Options{}), asidetest.Items
	policy.MaxBatch = 3
	loader := aside.NewLoader(c, policy, func(ctx context.Context, id int) (int, error) {
		aside.CurrentLoad(ctx).TTL(time.Duration(id+1) * time.Minute)
		return id, nil
	})
	results, err := loader.LookupMany(t.Context(), someIDs(8))
	require.NoError(t, err)
	for id, r := range results {
		require.LessOrEqual(t, r.TTL, time.Duration(id+1)*time.Minute, id)
		require.Greater(t, r.TTL, time.Duration(id)*time.Minute, id)
	}
}

func TestNoPortionBeginsAfterTheLoadsTimeIsUp(t *testing.T) {
	t.Parallel()
	c, policy := asidetest.NewCache(t, aside.Options{}), asidetest.Items
	policy.MaxBatch, policy.LoadTimeout = 1, 50*time.Millisecond
	var calls portions
	loader := aside.NewBatchLoader(c, policy, func(ctx context.Context, ids []int) (map[int]int, error) {
		calls.note(len(ids))
		<-ctx.Done()
		return nil, ctx.Err()
	})
	_, err := loader.GetMany(t.Context(), someIDs(3))
	require.Error(t, err)
	var batch *aside.BatchError[int]
	require.ErrorAs(t, err, &batch)
	require.Len(t, batch.Errors, 3)
	require.Equal(t, []int{1}, calls.sizes)
}

func TestSetManyStoresTheOthersWhereSomeFail(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{MaxValueBytes: 1 << 10}), t.Context()
		values := map[int]string{1: strings.Repeat("large", 1<<10)}
		for id := range 200 {
			values[id+100] = fmt.Sprint(id)
		}
		err := aside.SetMany(ctx, c, values, asidetest.ItemKey)
		var failed *aside.BatchError[int]
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.Errors, 1)
		require.ErrorIs(t, failed.Errors[1], &aside.Error{Code: aside.CodeInvalidArgument})
		for id := range 200 {
			v, err := aside.Get[string](ctx, c, asidetest.ItemKey(id+100))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(id), v)
		}
		require.ErrorIs(t, aside.SetMany(ctx, c, map[int]string{500: "stored?", 501: "x"}, func(id int) aside.Key {
			if id == 501 {
				return aside.Key{}
			}
			return asidetest.ItemKey(id)
		}), &aside.Error{Code: aside.CodeInvalidKey})
		_, err = aside.Get[string](ctx, c, asidetest.ItemKey(500))
		require.ErrorIs(t, err, aside.ErrMiss, "with an invalid key, nothing is stored")
		require.Error(t, aside.SetMany[int, string](ctx, c, nil, nil))
		require.NoError(t, aside.SetMany(ctx, c, map[int]string{}, asidetest.ItemKey))
		require.Error(t, aside.SetMany(ctx, nil, map[int]string{1: "x"}, asidetest.ItemKey))
	})
}

// Two policies of one category make the same key. Neither gets the other's value, also not in a batch.
func TestABatchTakesNoValueOfAnotherPolicyFromMemory(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c, ctx := newCache(aside.Options{}), t.Context()
		of := func(name string) func(context.Context, []int) (map[int]string, error) {
			return func(_ context.Context, ids []int) (map[int]string, error) {
				values := make(map[int]string)
				for _, id := range ids {
					values[id] = fmt.Sprint(name, id)
				}
				return values, nil
			}
		}
		items := aside.NewBatchLoader(c, asidetest.Items, of("item "))
		others := aside.NewBatchLoader(c, others, of("other "))
		for range 3 {
			values, err := items.GetMany(ctx, []int{1, 2})
			require.NoError(t, err)
			require.Equal(t, map[int]string{1: "item 1", 2: "item 2"}, values)
			values, err = others.GetMany(ctx, []int{1, 2})
			require.NoError(t, err)
			require.Equal(t, map[int]string{1: "other 1", 2: "other 2"}, values)
		}
	})
}

package asidetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Loads counts the calls of a load function: see Counted. It is safe for concurrent use.
type Loads[K comparable] struct {
	mu    sync.Mutex
	calls [][]K // the ids of each call; guarded by mu
	seen  int   // how many of them Expect has looked at; guarded by mu
}

// Counted returns load with a count of its calls: give the function to aside.NewLoader in place of load. A call counts when it begins. For GetOrLoad, whose
// loader has no id, count the function that the loader calls.
func Counted[K comparable, T any](load func(context.Context, K) (T, error)) (func(context.Context, K) (T, error), *Loads[K]) {
	l := &Loads[K]{}
	return func(ctx context.Context, id K) (T, error) {
		l.add([]K{id})
		return load(ctx, id)
	}, l
}

// CountedBatch is Counted for the load function of aside.NewBatchLoader.
func CountedBatch[K comparable, T any](load func(context.Context, []K) (map[K]T, error)) (func(context.Context, []K) (map[K]T, error), *Loads[K]) {
	l := &Loads[K]{}
	return func(ctx context.Context, ids []K) (map[K]T, error) {
		l.add(slices.Clone(ids))
		return load(ctx, ids)
	}, l
}

func (l *Loads[K]) add(ids []K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, ids)
}

// Calls returns the ids of each call so far, in the order in which the calls began.
func (l *Loads[K]) Calls() [][]K {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := make([][]K, len(l.calls))
	for i, ids := range l.calls {
		calls[i] = slices.Clone(ids)
	}
	return calls
}

// Expect fails the test unless exactly these ids were loaded since the last Expect, in any order and in any number of calls. An id that is to be loaded
// twice is named twice. Without ids, nothing must have been loaded. Call Settled before, if loads in the background count.
func (l *Loads[K]) Expect(t testing.TB, ids ...K) {
	t.Helper()
	l.mu.Lock()
	got := slices.Concat(l.calls[l.seen:]...)
	l.seen = len(l.calls)
	l.mu.Unlock()
	if wrong := differences(ids, got); len(wrong) > 0 {
		t.Errorf("asidetest: the loads since the last Expect are not as expected: %s", strings.Join(wrong, "; "))
	}
}

// differences says how the loads differ from the expected ones: an id in each text, in the order of their first loads, and then those that were not loaded.
func differences[K comparable](want, got []K) (wrong []string) {
	loaded, expected := map[K]int{}, map[K]int{}
	for _, id := range got {
		loaded[id]++
	}
	for _, id := range want {
		expected[id]++
	}
	said := map[K]bool{}
	for _, id := range slices.Concat(got, want) {
		if n, m := loaded[id], expected[id]; n != m && !said[id] {
			wrong = append(wrong, fmt.Sprintf("%v was %s, want %s", quoted(id), times(n), times(m)))
		}
		said[id] = true
	}
	return wrong
}

func quoted(id any) string {
	if s, ok := id.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprint(id)
}

func times(n int) string {
	switch n {
	case 0:
		return "not loaded"
	case 1:
		return "loaded once"
	case 2:
		return "loaded twice"
	}
	return fmt.Sprintf("loaded %d times", n)
}

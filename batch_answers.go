package aside

import "maps"

// answers are what a batch loader has come back with. What it was given and what it returned stay its own: it may go on changing
// them, so each id is looked up once, by what the cache knows it as, and nothing of theirs is held after that.
type answers[K comparable, T any] struct {
	values  map[K]T
	err     error
	each    *BatchError[K] // err, where it tells ids apart
	absent  map[K]struct{} // ids that another batch has not found, where its answer is handed on as this one's
	settles bool           // it is about this batch: an id that it leaves out is not found
}

// newAnswers is for a call of the loader with ids. An id that the loader has left out is not found only where the loader has got so
// far: a failure that concerns all, or that is another batch's, says nothing of it. What another batch has not found counts where its
// whole answer is handed on: its values and its error, and both about these ids alone. The same id may be another thing there.
func newAnswers[K comparable, T any](ids []K, values map[K]T, err error) answers[K, T] {
	a := answers[K, T]{values: values, err: err, settles: err == nil}
	if a.each, _ = err.(*BatchError[K]); a.each == nil { // inside another error it stands beside something that concerns all ids
		return a
	}
	asked := make(map[K]struct{}, len(ids))
	for _, id := range ids {
		asked[id] = struct{}{}
	}
	if values != nil && within(a.each.Errors, asked) && within(a.each.absent, asked) {
		a.absent, a.settles = a.each.absent, a.each.absent == nil
	}
	a.err = &BatchError[K]{Errors: maps.Clone(a.each.Errors)}
	return a
}

// of is what the loader has said of one id.
func (a answers[K, T]) of(id K) (value T, err error) {
	if v, found := a.values[id]; found {
		return v, nil
	}
	if a.each != nil {
		if own := a.each.Errors[id]; own != nil {
			return value, own
		}
		if _, absent := a.absent[id]; absent {
			return value, ErrNotFound
		}
	}
	if a.settles {
		return value, ErrNotFound
	}
	return value, a.err
}

// within reports whether all ids of a map were asked for.
func within[K comparable, V any](ids map[K]V, asked map[K]struct{}) bool {
	for id := range ids {
		if _, ours := asked[id]; !ours {
			return false
		}
	}
	return true
}

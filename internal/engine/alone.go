package engine

import (
	"bytes"
	"context"
	"errors"
	"reflect"

	"github.com/gatewayz/aside/internal/flight"
)

// Why LoadAlone gives no value.
var (
	ErrNoPlace     = errors.New("no free place for a load in the background")
	ErrNotStorable = errors.New("the loader does not let its value be cached")
)

// LoadAlone calls the loader of a request in the background, for no caller. No caller joins its flight, which has the time limit and the
// recovery of panics of all flights, and which Close waits for. It runs only in a free place, and its context ends as soon as a caller's load
// needs that place. The result is passed to use, nil for "not found", and is not cached. over is called when the loader has returned, which
// may be long after LoadAlone has: LoadAlone returns when the time of the load is up.
func (e *Engine) LoadAlone(ctx context.Context, r Request, load LoadFunc, use func(value any) error, over func()) error {
	call, leader := e.flights.JoinNew(flightKey{key: aloneKey(r.Key), typ: r.Type, policy: r.Policy})
	if !leader {
		over()
		return e.opts.ErrClosed
	}
	e.flights.Run(ctx, r.Policy.LoadTimeout, func(ctx context.Context) {
		defer over()
		value, err := e.loadAlone(ctx, r, load)
		if err == nil {
			err = use(value)
		}
		call.Resolve(Outcome{}, err)
	}, call)
	_, err := call.Wait(context.Background())
	return err
}

// aloneKey is the flight key of such a load. No key of a policy looks like it, so no caller joins.
func aloneKey(key string) string { return "%v:" + key }

func (e *Engine) loadAlone(ctx context.Context, r Request, load LoadFunc) (value any, err error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	leave, ok := e.loads.Borrow(end)
	if !ok {
		return nil, ErrNoPlace
	}
	defer leave()
	a := newAttempt(r)
	l := &Load{engine: e, attempts: []*attempt{a}, alone: true}
	defer l.end()
	a.Err = flight.ErrGoexit
	InLoader(func() {
		within := l.begin(ctx)
		defer within.end()
		load(within, []int{0}, func(_ int, g Loaded) { a.Loaded = g })
	})
	switch {
	case l.decision(0).noStore:
		return nil, ErrNotStorable
	case a.NotFound:
		return nil, nil
	case a.Err != nil:
		return nil, a.Err
	}
	return a.Value, nil
}

// IsAlone reports whether ctx belongs to a loader that LoadAlone has called, or to a load inside it.
func IsAlone(ctx context.Context) bool {
	for l := LoadOf(ctx); l != nil; l = l.parent {
		if l.alone {
			return true
		}
	}
	return false
}

// Same reports whether a cached value equals a loaded one: the codec encodes them to the same bytes, or reflect.DeepEqual or equal says so.
// equal compares two pointers to values. A value of nil is "not found".
func (e *Engine) Same(r Request, cached, loaded any, equal func(a, b any) bool) (bool, error) {
	if cached == nil || loaded == nil {
		return cached == nil && loaded == nil, nil
	}
	a, lim := newAttempt(r), e.limits()
	codec := a.codec()
	fresh, err := lim.Marshal(codec, loaded)
	if err != nil {
		return false, err
	}
	old, ok := cached.(*encoded)
	if !ok {
		payload, err := lim.Marshal(codec, cached)
		if err != nil {
			return false, err
		}
		old = &encoded{payload, codec, r.Type}
	}
	if bytes.Equal(old.payload, fresh) {
		return true, nil
	}
	// The codec may encode maps in any order. Both values are decoded, since the cached one may have been decoded too.
	first, second := reflect.New(r.Type).Interface(), reflect.New(r.Type).Interface()
	// Copies, as callers get them: a method Equal may reorder what it compares.
	if err := errors.Join(old.copyTo(first), (&encoded{fresh, codec, r.Type}).copyTo(second)); err != nil {
		return false, err
	}
	return reflect.DeepEqual(first, second) || equal(first, second), nil
}

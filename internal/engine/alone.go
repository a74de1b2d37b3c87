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
	ErrNoPlace     = errors.New("no load may run that nobody waits for")
	ErrNotStorable = errors.New("nothing can be said of the value")
)

// LoadAlone calls the loader of a request for no caller. Its flight is its own: nobody joins it, and it is bounded, guarded and waited for by
// Close like all others. It runs only in a place that is free, and its context ends as soon as a load of a caller needs that. What it returns
// goes to use, nil for "not found", and nowhere else. over is called when the loader has come back, which may be long after LoadAlone has
// returned because the time of the load was up.
func (e *Engine) LoadAlone(ctx context.Context, r Request, load LoadFunc, use func(value any) error, over func()) error {
	call, led := e.flights.JoinNew(flightKey{aloneKey(r.Key), r.Type, r.Policy})
	if !led {
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

// aloneKey is under which loads fly that nobody joins. No key of a policy looks like it.
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
		load(context.WithValue(ctx, loadKey{}, l), []int{0}, func(_ int, g Loaded) { a.Loaded = g })
	})
	switch {
	case !l.decision(0).store:
		return nil, ErrNotStorable // a value that is not to be cached
	case a.NotFound:
		return nil, nil
	case a.Err != nil:
		return nil, a.Err
	}
	return a.Value, nil
}

// IsAlone reports whether a context is that of a loader that LoadAlone has called, or of a load inside one.
func IsAlone(ctx context.Context) bool {
	for l := LoadOf(ctx); l != nil; l = l.parent {
		if l.alone {
			return true
		}
	}
	return false
}

// Same reports whether a value that is cached, and one that a loader has returned, are the same: by what the codec makes of them, or by equal,
// which compares two pointers to values. A value of nil is "not found".
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
	// What was read from Redis has been through the codec, and maps may be encoded in any order.
	first, second := reflect.New(r.Type).Interface(), reflect.New(r.Type).Interface()
	// Copies, as for callers: a method Equal may bring what it compares into another order.
	if err := errors.Join(old.copyTo(first), (&encoded{fresh, codec, r.Type}).copyTo(second)); err != nil {
		return false, err
	}
	return reflect.DeepEqual(first, second) || equal(first, second), nil
}

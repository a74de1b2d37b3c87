// Package outside marks the context of calls of the cache on behalf of a caller outside of the program. Such a caller may not invalidate
// everything.
package outside

import "context"

type caller struct{}

// With returns a context for calls on behalf of the caller with a name. Each caller has a name of its own.
func With(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, caller{}, name)
}

// Caller returns the name of the caller on whose behalf a call is made. It returns "" for the program itself, and for a context of the
// program's own whose Value method panics.
func Caller(ctx context.Context) (name string) {
	defer func() { _ = recover() }()
	name, _ = ctx.Value(caller{}).(string)
	return name
}

// Package outside marks calls of the cache that are made for somebody outside of the program, who may not invalidate everything.
package outside

import "context"

type caller struct{}

// With returns a context for calls on behalf of somebody, by a name that tells one from another.
func With(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, caller{}, name)
}

// Caller returns on whose behalf a call is made: "" for the program itself. A context of the program's own may panic.
func Caller(ctx context.Context) (name string) {
	defer func() { _ = recover() }()
	name, _ = ctx.Value(caller{}).(string)
	return name
}

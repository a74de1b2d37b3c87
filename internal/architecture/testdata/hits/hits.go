// Package hits calls what answers a hit in memory, so that the compiler makes it for a type.
package hits

import (
	"context"

	"github.com/gatewayz/aside"
)

type value struct{ Text string }

// Call is a call in its plain form.
func Call(ctx context.Context, c *aside.Cache, key aside.Key, load func(context.Context) (*value, error)) (*value, error) {
	return aside.GetOrLoad(ctx, c, key, load)
}

// Bound is one by a Loader.
func Bound(ctx context.Context, l *aside.Loader[string, value], id string) (value, error) {
	return l.Get(ctx, id)
}

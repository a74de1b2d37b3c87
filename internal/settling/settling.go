// Package settling lets package asidetest wait for the background work of a cache, and make one that stores nothing, without methods of the cache that
// programs see. The root package sets its variables. A cache is an *aside.Cache that is not nil.
package settling

import "context"

var (
	// Work waits until a cache has nothing under way, or until ctx ends. Its error says what is left.
	Work func(ctx context.Context, cache any) error

	// Pushes waits until a cache has handled the changes that Redis had to notify it of, or until ctx ends.
	Pushes func(ctx context.Context, cache any) error

	// Close closes a cache, and waits for its loaders, for calls and for background work until ctx ends. It reports what had not returned then.
	Close func(ctx context.Context, cache any) (loaders, calls bool)

	// Forget makes a cache in memory mode store nothing. It is called before the cache is used.
	Forget func(cache any)
)

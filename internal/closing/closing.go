// Package closing tells other packages of this module when a cache is closed, without a method of the cache that programs see.
package closing

// Of returns a channel that is closed when a cache is closed: an *aside.Cache, which must not be nil. The root package sets it.
var Of func(cache any) <-chan struct{}

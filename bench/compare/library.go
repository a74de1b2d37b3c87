package main

import (
	"context"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// A tier is where a library holds values, and so which scenarios it takes part in.
type tier uint

const (
	inMemory tier = 1 << iota // a hit needs no Redis
	inRedis                   // values are in Redis
	firstHit                  // an option of reading: only hits in Redis differ
)

// A library is one way to cache, in the form that is best for it.
type library struct {
	name    string
	modules []string // their versions are printed
	form    string   // options that are not the defaults, and the form of calls
	why     string   // what it does not do: printed where it is faster than aside
	tiers   tier

	products  func(env[*product]) (*opened[*product], error)
	catalogue func(env[*catalogue]) (*opened[*catalogue], error) // nil: takes no part with large values
	bytes     func(env[[]byte]) (*opened[[]byte], error)         // likewise, for values that are bytes already
}

// An env is what a library is opened with.
type env[T any] struct {
	addr    string // of Redis
	prefix  string // of keys, of the library alone
	ttl     time.Duration
	entries int // as many must fit into memory
	load    func(ctx context.Context, id int) (T, error)
}

// An opened library has the calls of a program that uses it. get is the form of a README: what is made at each call there, key or
// closure, is made at each call here. Ready is the same with all made before. The other functions are nil if there is no such call.
type opened[T any] struct {
	get        func(ctx context.Context, id int) (T, error)
	ready      func(ids int) func(ctx context.Context, id int) (T, error)
	many       func(ctx context.Context, ids []int) (values int, err error)
	set        func(ctx context.Context, id int, v T) error
	invalidate func(ctx context.Context, id int) error
	key        func(id int) string // the name of a value in Redis
	close      func()
}

// loadMany loads ids one by one, for libraries that load batches.
func loadMany[K comparable, T any](ctx context.Context, e env[T], ids []K, number func(K) int) (map[K]T, error) {
	out := make(map[K]T, len(ids))
	for _, id := range ids {
		v, err := e.load(ctx, number(id))
		if err != nil {
			return nil, err
		}
		out[id] = v
	}
	return out, nil
}

// libraries are in the order of the tables: aside, then those with Redis, then those in memory alone.
var libraries = slices.Concat(asideLibraries, rueidisLibraries, goredisLibraries, memoryLibraries)

// versions returns the versions of modules, as they are in this program.
func versions(modules []string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var out []string
	for _, path := range modules {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path != path {
				continue
			}
			if m.Replace != nil {
				m = m.Replace
			}
			if m.Version == "" || m.Version == "(devel)" {
				out = append(out, path+" of this repository")
			} else {
				out = append(out, path+" "+m.Version)
			}
		}
	}
	return strings.Join(out, ", ")
}

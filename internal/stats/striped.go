package stats

import (
	"sync/atomic"
	"unsafe"
)

// spread is 2^64 divided by the golden ratio: Fibonacci hashing multiplies by it.
const spread = 0x9e3779b97f4a7c15

// A Striped counter is one that cores raise at the same time without waiting for each other's cache line, as long as each goroutine
// keeps to its own stripe. A stripe chosen at random would not do: each stripe would go back and forth between all cores.
type Striped [32]struct {
	n atomic.Uint64
	_ [56]byte
}

// Add raises the stripe that the goroutine's stack points to, and returns a number that grows by one with each call. The number
// begins elsewhere for each stack: calls of few goroutines do not get the same few numbers. The address of a variable costs nothing
// to get, and goroutines that run at the same time have different stacks.
func (s *Striped) Add() uint64 {
	var here byte
	stack := uint64(uintptr(unsafe.Pointer(&here)) >> 11) // the smallest stack has 2 KiB
	return stack + s[stack*spread>>59].n.Add(1)           // the upper 5 bits
}

// Load returns the sum of all stripes.
func (s *Striped) Load() (sum uint64) {
	for i := range s {
		sum += s[i].n.Load()
	}
	return sum
}

package engine

import "github.com/gatewayz/aside/internal/near"

// A Place says where the value of a request may be kept. The root package has one with the same value for each.
type Place int

// The places of values.
const (
	PlaceBoth   Place = iota // Redis, and memory
	PlaceMemory              // memory alone
	PlaceRedis               // Redis alone
)

// A value that is for memory alone goes the way of a value that Redis cannot take: see keepWithoutLease. Redis is asked for one byte of its key, so that
// it notifies this process of changes: an invalidation names also keys without a value. What Redis holds under the key is not used.
//
// A Set or a Refresh of such a value removes it in all processes, and keeps the new one nowhere. Otherwise:
//
//  1. Process A is to keep a value by Set, and removes the older one from all processes.
//  2. Process B does the same, with a newer value. Redis does not notify A, which has not asked for the key yet.
//  3. A asks for the key, and keeps its value, which is older than that of B.

// elsewhere reports whether the value of a is kept by memory alone, although there is a Redis.
func (e *Engine) elsewhere(a *attempt) bool { return e.Store != nil && a.Place == PlaceMemory }

// bound shortens the time for which memory serves a value that Redis holds. Then Redis is asked again.
func (a *attempt) bound(entry *near.Entry, now int64) *near.Entry {
	if a.Policy.MemoryTTL <= 0 {
		return entry
	}
	end := now + int64(a.Policy.MemoryTTL)
	entry.Until = min(entry.Until, end)
	if p := entry.Plan; p != nil {
		p.RefreshAt, p.FreshUntil, p.StaleUntil, p.DeadUntil = min(p.RefreshAt, end), min(p.FreshUntil, end), min(p.StaleUntil, end), min(p.DeadUntil, end)
	}
	return entry
}

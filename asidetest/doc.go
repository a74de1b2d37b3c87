// Package asidetest is for tests of programs that use package aside: a cache that ends with its test, a wait until its background work is done, a
// count of loads, a Redis that fails on request, and a cache that stores nothing.
//
//	func TestTheProductIsLoadedOnce(t *testing.T) {
//		load, loads := asidetest.Counted(loadProduct)
//		shop := NewShop(asidetest.New(t, aside.Options{}), load)
//		shop.Page(7)
//		shop.Page(7)
//		loads.Expect(t, 7) // once
//	}
//
// In memory mode everything runs in a bubble of testing/synctest too, where TTLs pass without waiting. docs/testing.md has more.
package asidetest

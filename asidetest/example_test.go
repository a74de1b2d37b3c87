package asidetest_test

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidetest"
)

// A Shop is a program under test: it asks for products by a cache.
type Shop struct {
	products *aside.Loader[int, string]
}

func NewShop(c *aside.Cache, load func(context.Context, int) (string, error)) *Shop {
	return &Shop{aside.NewLoader(c, Products, load)}
}

var Products = aside.Policy{Name: "products", Category: "products", TTL: 10 * time.Minute}

func loadProduct(_ context.Context, id int) (string, error) { return fmt.Sprint("product ", id), nil }

// ExampleNew tests that a product is loaded once.
func ExampleNew() {
	run(func(t testing.TB) { // in a program: func TestAProductIsLoadedOnce(t *testing.T) {
		load, loads := asidetest.Counted(loadProduct)
		shop := NewShop(asidetest.New(t, aside.Options{}), load)
		for range 3 {
			_, _ = shop.products.Get(context.Background(), 7)
		}
		loads.Expect(t, 7)
		loads.Expect(t, 7) // a failure: nothing was loaded since the last Expect
	})
	// Output:
	// asidetest: the loads since the last Expect are not as expected: 7 was not loaded, want loaded once
}

// ExampleNew_synctest tests that a product is loaded again after its TTL. In a bubble of testing/synctest, ten minutes pass at once.
func ExampleNew_synctest() {
	test := func(t *testing.T) { // in a program: func TestAProductExpires(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			load, loads := asidetest.Counted(loadProduct)
			shop := NewShop(asidetest.New(t, aside.Options{}), load)
			_, _ = shop.products.Get(t.Context(), 7)
			time.Sleep(9 * time.Minute)
			_, _ = shop.products.Get(t.Context(), 7)
			loads.Expect(t, 7)
			time.Sleep(2 * time.Minute)
			_, _ = shop.products.Get(t.Context(), 7)
			loads.Expect(t, 7)
			fmt.Println(loads.Calls())
		})
	}
	runTest(test)
	// Output: [[7] [7]]
}

// ExampleNewRedis tests what a program does while Redis is away, and afterwards.
func ExampleNewRedis() {
	run(func(t testing.TB) { // in a program: func TestTheShopIsOpenWithoutRedis(t *testing.T) {
		ctx := context.Background()
		redis := asidetest.NewRedis(t)
		c := asidetest.New(t, redis.Options())
		shop := NewShop(c, loadProduct)
		_ = c.Ready(ctx)

		redis.Down()
		r, err := shop.products.Lookup(ctx, 7)
		fmt.Println(r.Value, r.Status, err)
		receipt, err := shop.products.Invalidate(ctx, 8)
		fmt.Println(receipt.Confirmed, err)

		redis.Up()
		asidetest.Settled(t, c) // Redis has confirmed the invalidation, and calls use Redis again
		r, err = shop.products.Lookup(ctx, 8)
		fmt.Println(r.Value, r.Status, err)
	})
	// Output:
	// product 7 fallback <nil>
	// false <nil>
	// product 8 miss <nil>
}

// ExampleAlwaysMiss tests code that is to work whatever is cached.
func ExampleAlwaysMiss() {
	run(func(t testing.TB) {
		load, loads := asidetest.Counted(loadProduct)
		shop := NewShop(asidetest.AlwaysMiss(t, aside.Options{}), load)
		for range 3 {
			_, _ = shop.products.Get(context.Background(), 7)
		}
		loads.Expect(t, 7, 7, 7)
		fmt.Println(loads.Calls())
	})
	// Output: [[7] [7] [7]]
}

// ExampleSettled tests what one process serves after another one has invalidated a value: here, two caches on one Redis.
func ExampleSettled() {
	run(func(t testing.TB) {
		ctx := context.Background()
		redis := asidetest.NewRedis(t)
		a, b := asidetest.New(t, redis.Options()), asidetest.New(t, redis.Options())
		price := "10 €"
		load := func(context.Context, int) (string, error) { return price, nil }
		here, there := NewShop(a, load), NewShop(b, load)
		_, _ = there.products.Get(ctx, 7)
		asidetest.Settled(t, a, b)

		price = "12 €"
		_, _ = here.products.Invalidate(ctx, 7)
		asidetest.Settled(t, a, b)
		fmt.Println(there.products.Get(ctx, 7))
	})
	// Output: 12 € <nil>
}

// ExampleCountedBatch tests that a batch asks for the missing ids alone, in one call.
func ExampleCountedBatch() {
	run(func(t testing.TB) {
		load, loads := asidetest.CountedBatch(func(_ context.Context, ids []int) (map[int]string, error) {
			found := map[int]string{}
			for _, id := range ids {
				found[id] = fmt.Sprint("product ", id)
			}
			return found, nil
		})
		products := aside.NewBatchLoader(asidetest.New(t, aside.Options{}), Products, load)
		_, _ = products.GetMany(context.Background(), []int{1, 2})
		_, _ = products.GetMany(context.Background(), []int{1, 2, 3})
		loads.Expect(t, 1, 2, 3)
		fmt.Println(len(loads.Calls()), loads.Calls()[1])
	})
	// Output: 2 [3]
}

// run stands for a test: it prints what the test fails with.
func run(test func(t testing.TB)) {
	tb := &fakeTB{}
	test(tb)
	tb.end()
	if failed := tb.failed(); failed != "" {
		fmt.Println(failed)
	}
}

// runTest stands for a test that needs a *testing.T. It prints what the test prints, and no line of its own.
func runTest(test func(t *testing.T)) {
	for name, value := range map[string]string{"test.v": "false", "test.skip": "", "test.run": ""} {
		f := flag.Lookup(name).Value
		defer func(was string) { _ = f.Set(was) }(f.String())
		_ = f.Set(value)
	}
	testing.RunTests(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "Test", F: test}})
}

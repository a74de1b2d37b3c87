package aside_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/gatewayz/aside"
)

type Product struct{ Name string }

// Products says how products are cached: under products:ID, for ten minutes.
var Products = aside.Policy{Name: "products", Category: "products", TTL: 10 * time.Minute}

// loadProduct stands for a query that takes its time.
func loadProduct(ctx context.Context, id int) (Product, error) {
	fmt.Println("loading", id)
	return Product{Name: fmt.Sprint("product ", id)}, nil
}

func Example() {
	ctx := context.Background()
	c, err := aside.New(aside.Options{}) // in memory; OptionsFromEnv puts it on Redis
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	products := aside.NewLoader(c, Products, loadProduct) // made once, for all goroutines

	p, err := products.Get(ctx, 7) // a miss: of all callers that miss at the same time, one loads
	fmt.Println(p, err)
	p, err = products.Get(ctx, 7) // a hit
	fmt.Println(p, err)

	// The product has changed: the next call loads.
	_, err = products.Invalidate(ctx, 7)
	fmt.Println(err)

	// The same without a Loader, for keys of several parts: the key and the function are arguments of the call.
	p, err = aside.GetOrLoad(ctx, c, Products.Key(7), func(ctx context.Context) (Product, error) { return loadProduct(ctx, 7) })
	fmt.Println(p, err)
	// Output:
	// loading 7
	// {product 7} <nil>
	// {product 7} <nil>
	// <nil>
	// loading 7
	// {product 7} <nil>
}

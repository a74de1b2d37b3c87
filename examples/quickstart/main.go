// Command quickstart caches the results of a slow function in memory. It looks up one product three times: a miss of about 300 ms, and two
// hits of some microseconds. Then the price changes, the product is invalidated, and the next lookup is a miss with the new price.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/gatewayz/aside"
)

type product struct {
	ID    int
	Name  string
	Price float64
}

// price stands for a column of a database.
var price = 24.50

// products is the policy of products: their keys are products:ID, and their values are cached for ten minutes.
var products = aside.Policy{Name: "products", Category: "products", TTL: 10 * time.Minute}

func main() {
	cache, err := aside.New(aside.Options{}) // in memory; with Options.Redis, processes share values on a server
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()
	ctx := context.Background()

	for range 3 {
		show(ctx, cache, 7)
	}

	price = 19.90
	fmt.Println("the price has changed")
	if _, err := cache.Invalidate(ctx, products.Key(7)); err != nil {
		log.Print(err)
		return
	}
	show(ctx, cache, 7)
}

// show looks up a product, and prints its status, its origin, and the time of the call. Lookup is like GetOrLoad, and also returns whether
// the call was a hit, and why.
func show(ctx context.Context, cache *aside.Cache, id int) {
	start := time.Now()
	r, err := aside.Lookup(ctx, cache, products.Key(id), func(context.Context) (product, error) {
		time.Sleep(300 * time.Millisecond)
		return product{ID: id, Name: "teapot", Price: price}, nil
	})
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Printf("%-4s from %-6s in %8v: %+v\n", r.Status, r.Tier, time.Since(start).Round(time.Microsecond), r.Value)
}

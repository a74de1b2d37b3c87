// Command quickstart caches the results of a slow function in memory.
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

// price stands for a row of a database.
var price = 24.50

// products says how products are cached: under products:ID, for ten minutes.
var products = aside.Policy{Name: "products", Category: "products", TTL: 10 * time.Minute}

func main() {
	cache, err := aside.New(aside.Options{}) // in memory; Options.Redis adds a server
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

// show looks up a product. Lookup is GetOrLoad with a Result, which says whether the call was a hit, and why.
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

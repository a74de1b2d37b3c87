package aside_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/gatewayz/aside"
)

// One write has changed a product, the lists that show it, and the rankings.
func ExampleCache_InvalidateChanges() {
	products := aside.Policy{Category: "products", TTL: time.Hour}
	rankings := aside.Policy{Category: "rankings", TTL: 4 * time.Hour}
	c, err := aside.New(aside.Options{Policies: []aside.Policy{products, rankings}})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	ctx := context.Background()

	// UPDATE products SET price = 5 WHERE id = 7; COMMIT
	receipt, err := c.InvalidateChanges(ctx, aside.Changes{
		Keys:       []aside.Key{products.Key(7)},
		Tags:       []string{"supplier 3"},
		Categories: []string{rankings.Category},
	})
	fmt.Println(receipt.Confirmed, err)

	_, err = c.InvalidateChanges(ctx, aside.Changes{Categories: []string{"rankigns"}})
	fmt.Println(err)
	// Output:
	// true <nil>
	// aside: there is no category "rankigns": the categories are products, rankings; list the Policy of another one in Options.Policies
}

// A typing error in a policy's name does not compile.
func ExampleCache_InvalidatePolicy() {
	products := aside.Policy{Category: "products", TTL: time.Hour}
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	receipt, err := c.InvalidatePolicy(context.Background(), products)
	fmt.Println(receipt.Confirmed, err)
	// Output: true <nil>
}

// The loader returns what its database returns.
func ExampleOptions_notFound() {
	c, err := aside.New(aside.Options{NotFound: []error{sql.ErrNoRows}})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	users := aside.NewLoader(c, aside.Policy{Category: "users", TTL: time.Minute}, func(_ context.Context, id int) (string, error) {
		fmt.Println("SELECT name FROM users WHERE id =", id)
		return "", sql.ErrNoRows
	})

	for range 2 { // the second call asks no database
		_, err = users.Get(context.Background(), 7)
		fmt.Println(err, errors.Is(err, aside.ErrNotFound), errors.Is(err, sql.ErrNoRows))
	}
	// Output:
	// SELECT name FROM users WHERE id = 7
	// sql: no rows in result set true true
	// sql: no rows in result set true true
}

// A process ends: first its server, which uses the cache, and then the cache.
func ExampleCache_Shutdown() {
	c, err := aside.New(aside.Options{})
	if err != nil {
		panic(err)
	}
	if err := c.Ready(context.Background()); err != nil {
		fmt.Println(err) // Redis is not in use. The cache works without it
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = c.Shutdown(ctx)
	var left *aside.ShutdownError
	if errors.As(err, &left) {
		fmt.Println("invalidate again:", left.Keys, left.Tags, left.Patterns)
	}
	fmt.Println(err)
	// Output: <nil>
}

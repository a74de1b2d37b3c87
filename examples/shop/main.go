// Command shop is the backend of a shop, with a cache in front of its database: products and pages of products, batches, profiles, transactions, and the
// routes of its operators. It shows what a program writes that uses aside, and no more.
//
//	go run ./examples/shop                                   in memory
//	REDIS_URL=redis://localhost:6379 go run ./examples/shop  on Redis
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/gatewayz/aside"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, "localhost:8080"); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, addr string) error {
	s, err := openStore(ctx)
	if err != nil {
		return err
	}
	defer s.db.Close()
	opts, err := aside.OptionsFromEnv()
	if err != nil {
		return err
	}
	opts.Secret = aside.NewSecret(os.Getenv("CACHE_SECRET")) // of the hashes of customers
	shop, err := newShop(s, opts)
	if err != nil {
		return err
	}
	operator := aside.NewSecret(os.Getenv("OPERATOR_KEY")) // without one, the operators' routes answer nobody
	server := &http.Server{Addr: addr, Handler: shop.handler(operator), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	log.Printf("http://%s/suppliers/3/products", addr)
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(last), shop.cache.Shutdown(last))
}

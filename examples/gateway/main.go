// Command gateway is the backend of an AI model gateway, with a cache in front of it. The backend loads models from 24 upstreams over HTTP.
// It reads chat sessions, profiles, activity and rankings from a database.
//
//	go run ./examples/gateway                                   serve, cached in memory
//	REDIS_URL=redis://localhost:6379 go run ./examples/gateway  serve, cached in Redis
//	go run ./examples/gateway -report                           measure hit rates, latencies and saved backend calls, and what callers wait for when values expire
//
// The command needs no other service. It starts the upstreams itself, on loopback, and its database is a SQLite file.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the process at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main for tests, and returns the exit status: 0 for success, 1 for an error or a report that misses a target, 2 for a wrong command line or
// environment.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	cfg, err := parseFlags(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "gateway:", err)
		return 2
	}
	opts, err := optionsFromEnv(cfg, log)
	if err != nil {
		fmt.Fprintln(stderr, "gateway:", err)
		return 2
	}
	if !cfg.report {
		err = runServer(ctx, cfg, opts, stdout, log)
	} else {
		var met bool
		met, err = runReport(ctx, cfg, opts, stdout, stderr, log)
		if err == nil && !met {
			return 1
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "gateway:", err)
		return 1
	}
	return 0
}

// optionsFromEnv reads the address of Redis and the secret for the hashes of API keys from the environment.
func optionsFromEnv(cfg config, log *slog.Logger) (aside.Options, error) {
	opts, err := aside.OptionsFromEnv()
	if err != nil {
		return opts, err
	}
	opts.Logger, opts.Policies = log, newPolicies().list()
	secret := []byte(os.Getenv("CACHE_SECRET"))
	switch {
	case len(secret) > 0:
	case len(opts.Redis.InitAddress) > 0 && cfg.db != "":
		return opts, errors.New("CACHE_SECRET is not set: without a secret, users' API keys can be guessed from their hashes in Redis, " +
			"and processes with different secrets have different keys, so an invalidation in one process misses the others. Make one with: openssl rand -hex 32")
	default: // the database belongs to this process alone, so a secret for this run is enough
		secret = make([]byte, 32)
		_, err = rand.Read(secret)
	}
	opts.Secret = aside.NewSecret(secret)
	return opts, err
}

// runServer serves until the context ends.
func runServer(ctx context.Context, cfg config, opts aside.Options, stdout io.Writer, log *slog.Logger) (err error) {
	// The step that fails fast comes first: if the port is in use, no database has to be filled.
	listener, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return err
	}
	defer listener.Close() // for the errors before serve, which closes the listener itself
	front, err := frontEndFromEnv(log)
	if err != nil {
		return err
	}
	if front != nil {
		opts.OnInvalidated = front.Notify
		defer func() {
			patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			err = errors.Join(err, front.Close(patience))
		}()
	}
	cache, err := aside.New(opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cache.Close()) }() // runs before front.Close, because cache.Close delivers the last invalidations
	b, err := startBackend(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	banner(stdout, "http://"+listener.Addr().String(), cfg, b, opts)
	err = newServer(b, cache, newPolicies(), adminOf(cache, log), log).serve(ctx, listener)
	log.Info("stopped", "cache", cache.Health().State)
	return err
}

// adminOf returns the handlers for operators, by path. CACHE_API_KEY has all scopes, and CACHE_READ_KEY only reads. The health handler needs no key.
func adminOf(cache *aside.Cache, log *slog.Logger) map[string]http.Handler {
	opts := asidehttp.Options{
		APIKeys: []aside.Secret{aside.NewSecret(os.Getenv("CACHE_API_KEY"))},
		Keys:    []asidehttp.Key{{Name: "reader", Secret: aside.NewSecret(os.Getenv("CACHE_READ_KEY")), Scopes: []asidehttp.Scope{asidehttp.ScopeRead}}},
		Logger:  log,
	}
	return map[string]http.Handler{
		"/api/cache/invalidate": asidehttp.AdminHandler(cache, opts),
		"/api/cache/metrics":    asidehttp.Metrics(cache, opts),
		"/api/cache/health":     asidehttp.Health(cache, asidehttp.HealthOptions{}),
	}
}

// frontEndFromEnv returns a sender that notifies a web front end of invalidations, or nil if REVALIDATE_URL is not set.
func frontEndFromEnv(log *slog.Logger) (*asidehttp.Revalidator, error) {
	to := os.Getenv("REVALIDATE_URL")
	if to == "" {
		return nil, nil
	}
	return asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{URL: aside.NewSecret(to), Secret: aside.NewSecret(os.Getenv("REVALIDATE_SECRET")), Logger: log})
}

// banner prints commands to try.
func banner(out io.Writer, base string, cfg config, b *backend, opts aside.Options) {
	gateway := b.catalogue.gateways[0]
	if slices.Contains(b.catalogue.gateways, "openrouter") {
		gateway = "openrouter"
	}
	fmt.Fprintf(out, `
The gateway serves on %[1]s; its cache is %[2]s.
Upstreams answer in %[3]v to %[4]v (-speedup 1 for the full %[5]v to %[6]v).

Send each request twice, and compare the time and the Cache-Status header:

  curl -s -o /dev/null -D - -w '%%{time_total} s\n' '%[1]s/api/models?gateway=all'
  curl -s -o /dev/null -D - -w '%%{time_total} s\n' '%[1]s/api/models?gateway=%[7]s'
  curl -s -o /dev/null -D - -w '%%{time_total} s\n' '%[1]s/api/ranking/models'

As a user (the example has the API keys %[8]s to %[9]s):

  curl -i -H 'Authorization: Bearer %[8]s' '%[1]s/api/user/me'
  curl -i -H 'Authorization: Bearer %[8]s' '%[1]s/api/chat/sessions?limit=10&offset=0'
  curl -i -H 'Authorization: Bearer %[8]s' '%[1]s/api/chat/search?q=cache'
  curl -i -H 'Authorization: Bearer %[8]s' -d '{"content":"Hello"}' '%[1]s/api/chat/sessions/1/messages'

As an operator, with the CACHE_API_KEY of the server's environment:

  curl -H "Authorization: Bearer $CACHE_API_KEY" '%[1]s/api/cache/invalidate?metrics=true&pattern=models:*'
  curl -H "Authorization: Bearer $CACHE_API_KEY" -H 'Content-Type: application/json' -d '{"category":"models"}' %[1]s/api/cache/invalidate

`, base, place(opts), cfg.compressed(cfg.upstreamMin), cfg.compressed(cfg.upstreamMax), cfg.upstreamMin, cfg.upstreamMax,
		gateway, demoKey(1), demoKey(len(b.store.users)))
}

// place describes where the cache stores its values.
func place(opts aside.Options) string {
	if len(opts.Redis.InitAddress) == 0 {
		return "in memory"
	}
	return "on Redis at " + strings.Join(opts.Redis.InitAddress, ", ")
}

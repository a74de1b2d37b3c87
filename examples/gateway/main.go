// Command gateway is the backend of an AI model gateway, with a cache in front of it. The backend loads models from 24 upstreams over HTTP.
// It reads chat sessions, profiles, activity and rankings from a database.
//
//	go run ./examples/gateway                                   warm the cache and serve, cached in memory
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
	"sync"
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
	screen := newConsole(stderr)
	log := slog.New(slog.NewTextHandler(screen, nil))
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
		err = runServer(ctx, cfg, opts, stdout, screen, log)
	} else {
		var met bool
		met, err = runReport(ctx, cfg, opts, stdout, stderr, log)
		if err == nil && !met {
			return 1
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "gateway:", err)
		if errors.As(err, new(environmentError)) {
			return 2
		}
		return 1
	}
	return 0
}

// An environmentError is about a value of the environment.
type environmentError struct{ error }

// optionsFromEnv reads the address of Redis and the secret for the hashes of API keys from the environment.
func optionsFromEnv(cfg config, log *slog.Logger) (aside.Options, error) {
	opts, err := aside.OptionsFromEnv()
	if err != nil {
		return opts, err
	}
	opts.Logger, opts.Policies, opts.OpTimeout = log, newPolicies().list(), cfg.opTimeout
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
func runServer(ctx context.Context, cfg config, opts aside.Options, stdout io.Writer, screen *console, log *slog.Logger) (err error) {
	// The step that fails fast comes first: if the port is in use, no database has to be filled.
	listener, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return err
	}
	defer listener.Close() // for the errors before serve, which closes the listener itself
	operators, err := operatorsFromEnv(log)
	if err != nil {
		return environmentError{err}
	}
	front, err := frontEndFromEnv(log)
	if err != nil {
		return environmentError{err}
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
		return environmentError{err}
	}
	defer func() { err = errors.Join(err, cache.Close()) }() // runs before front.Close, because cache.Close delivers the last invalidations
	b, err := startBackend(ctx, cfg, log)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		log.Info("stopped before it was ready")
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	keys := newPolicies()
	warmings := newWarmings(b, cache, keys)
	admin := adminOf(cache, operators, warmings)
	page, pageKey := dashboardOf(cache, operators, listener.Addr())
	if page != nil {
		admin[dashboardPath] = page
	}
	base := "http://" + listener.Addr().String()
	fmt.Fprint(stdout, pageLine(base, pageKey, page != nil))
	banner(stdout, base, cfg, b, opts, operators != nil)
	var warm sync.WaitGroup
	warmCtx, stopWarming := context.WithCancel(ctx)
	if cfg.warm {
		warm.Go(func() { warmUp(warmCtx, warmings, screen, log) })
	}
	err = newServer(b, cache, keys, admin, log).serve(ctx, listener)
	stopWarming()
	warm.Wait() // before the cache and the backend are closed
	log.Info("stopped", "cache", cache.Health().State)
	return err
}

// operatorsFromEnv returns the keys of operators: CACHE_API_KEY has all scopes, and CACHE_READ_KEY only reads. It returns nil if neither is set. A key
// that is no good is an error: the handlers would only ignore it, and deny every request.
func operatorsFromEnv(log *slog.Logger) (*asidehttp.Options, error) {
	key, readKey := os.Getenv("CACHE_API_KEY"), os.Getenv("CACHE_READ_KEY")
	if key == "" && readKey == "" {
		return nil, nil
	}
	opts := &asidehttp.Options{
		APIKeys: []aside.Secret{aside.NewSecret(key)},
		Keys:    []asidehttp.Key{{Name: "reader", Secret: aside.NewSecret(readKey), Scopes: []asidehttp.Scope{asidehttp.ScopeRead}}},
		Logger:  log,
	}
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("CACHE_API_KEY or CACHE_READ_KEY: %w", err)
	}
	return opts, nil
}

// adminOf returns the handlers for operators, by path. The health handler needs no key, and is the only one if operators have none.
func adminOf(cache *aside.Cache, operators *asidehttp.Options, warmings []warming) map[string]http.Handler {
	handlers := map[string]http.Handler{"/api/cache/health": asidehttp.Health(cache, asidehttp.HealthOptions{})}
	if operators != nil {
		opts := *operators
		opts.Warmers = warmers(warmings)
		handlers["/api/cache/invalidate"] = asidehttp.AdminHandler(cache, opts)
		handlers["/api/cache/metrics"] = asidehttp.Metrics(cache, opts)
	}
	return handlers
}

// frontEndFromEnv returns a sender that notifies a web front end of invalidations, or nil if REVALIDATE_URL is not set.
func frontEndFromEnv(log *slog.Logger) (*asidehttp.Revalidator, error) {
	to := os.Getenv("REVALIDATE_URL")
	if to == "" {
		return nil, nil
	}
	return asidehttp.NewRevalidator(asidehttp.RevalidatorOptions{URL: aside.NewSecret(to), Secret: aside.NewSecret(os.Getenv("REVALIDATE_SECRET")), Logger: log})
}

// banner prints what runs, where, and commands to try. It is short, so that all of it is on a screen with the bar of the warming below.
func banner(out io.Writer, base string, cfg config, b *backend, opts aside.Options, operators bool) {
	gateway := b.catalogue.gateways[0]
	if slices.Contains(b.catalogue.gateways, "openrouter") {
		gateway = "openrouter"
	}
	fmt.Fprintf(out, `
The gateway serves on %[1]s: %[2]d models of %[3]d upstreams, and the chats of %[4]d users.
Its cache is %[5]s. The upstreams answer in %[6]v to %[7]v (-speedup 1 for the full %[8]v to %[9]v).

Try this, and look for the Cache-Status header and the time:

  curl -s -o /dev/null -D - -w '%%{time_total} s\n' '%[1]s/api/models?gateway=all'
  curl -s -o /dev/null -D - -w '%%{time_total} s\n' '%[1]s/api/models?gateway=%[10]s'
  curl -s -o /dev/null -D - -w '%%{time_total} s\n' '%[1]s/api/ranking/models'

As a user, each twice (the API keys are %[11]s to %[12]s):

  curl -i -H 'Authorization: Bearer %[11]s' '%[1]s/api/chat/sessions?limit=10&offset=0'
  curl -i -H 'Authorization: Bearer %[11]s' '%[1]s/api/chat/search?q=cache'
  curl -i -H 'Authorization: Bearer %[11]s' -d '{"content":"Hello"}' '%[1]s/api/chat/sessions/1/messages'

`, base, b.catalogue.count, len(b.catalogue.gateways), len(b.store.users), place(opts),
		cfg.compressed(cfg.upstreamMin), cfg.compressed(cfg.upstreamMax), cfg.upstreamMin, cfg.upstreamMax,
		gateway, demoKey(1), demoKey(len(b.store.users)))
	if !operators {
		fmt.Fprint(out, "For an operator's commands, set CACHE_API_KEY and start again.\n\n")
		return
	}
	fmt.Fprintf(out, `As an operator, with the CACHE_API_KEY of the server's environment:

  curl -H "Authorization: Bearer $CACHE_API_KEY" '%[1]s/api/cache/invalidate?metrics=true&pattern=models:*'
  curl -H "Authorization: Bearer $CACHE_API_KEY" -H 'Content-Type: application/json' -d '{"category":"models"}' %[1]s/api/cache/invalidate
  curl -H "Authorization: Bearer $CACHE_API_KEY" -H 'Content-Type: application/json' -d '{"warm":"catalogues"}' %[1]s/api/cache/invalidate

`, base)
}

// place describes where the cache stores its values.
func place(opts aside.Options) string {
	if len(opts.Redis.InitAddress) == 0 {
		return "in memory"
	}
	return "on Redis at " + strings.Join(opts.Redis.InitAddress, ", ")
}

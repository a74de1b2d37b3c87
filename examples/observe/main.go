// Command observe shows the metrics of a cache, without Docker. It is a small model gateway that sends requests to itself. It serves /metrics, starts
// a Prometheus that scrapes them, with the rules of asideprom, and draws some graphs of what Prometheus has.
//
//	go run ./examples/observe                                   cached in memory
//	REDIS_URL=redis://localhost:6379 go run ./examples/observe  cached in Redis
//
// If there is no program prometheus in PATH, the command says how to get one, and serves all the same. Control-C ends both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/gatewayz/aside"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the process at once
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main for tests, and returns the exit status: 0 for success, 1 for an error, 2 for a wrong command line or environment.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fail := func(code int, err error) int {
		fmt.Fprintln(stderr, "observe:", err)
		return code
	}
	cfg, err := parseFlags(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return fail(2, err)
	}
	opts, err := aside.OptionsFromEnv()
	if err != nil {
		return fail(2, err)
	}
	opts.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	if err := observe(ctx, cfg, opts, stdout); err != nil {
		return fail(1, err)
	}
	return 0
}

// config has the values of the flags.
type config struct {
	addr           string
	prometheus     string // the program; empty if there is none
	prometheusAddr string
	dir            string
	rate           float64
}

const usage = `observe serves the metrics of a cache under traffic, and starts a Prometheus that stores them.
The cache is on the Redis of REDIS_URL or REDIS_HOST, or in memory without them.

Flags:
`

// parseFlags reads the command line. Its errors are messages for the user. With -help it prints the help, and returns flag.ErrHelp.
func parseFlags(args []string, output io.Writer) (config, error) {
	var cfg config
	flags := flag.NewFlagSet("observe", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by run
	flags.StringVar(&cfg.addr, "addr", "127.0.0.1:8081", "listen address of the server")
	flags.StringVar(&cfg.prometheus, "prometheus", "", "`file` of the program prometheus (default: the one in PATH)")
	flags.StringVar(&cfg.prometheusAddr, "prometheus-addr", "127.0.0.1:9090", "listen address of Prometheus")
	flags.StringVar(&cfg.dir, "dir", "", "`directory` for prometheus.yml, the rules, the dashboard and the data (default: a temporary one, removed at the end)")
	flags.Float64Var(&cfg.rate, "rate", 100, "requests a second that the command sends to itself")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(output, usage)
			flags.SetOutput(output)
			flags.PrintDefaults()
		}
		return cfg, err
	}
	if flags.NArg() > 0 {
		return cfg, fmt.Errorf("unexpected argument %q: everything is a flag", flags.Arg(0))
	}
	if !(cfg.rate >= 1 && cfg.rate <= 10_000) { // refuses NaN too
		return cfg, fmt.Errorf("-rate %v: want 1 to 10000", cfg.rate)
	}
	return cfg, cfg.findPrometheus()
}

// observe serves until the context ends.
func observe(ctx context.Context, cfg config, opts aside.Options, stdout io.Writer) (err error) {
	listener, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return err
	}
	defer listener.Close() // for the errors before serve, which closes the listener itself
	dir, remove, err := workDir(cfg.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if err := writeFiles(dir, listener.Addr().String()); err != nil {
		return err
	}
	s, err := newSite(opts, pageOf(cfg.prometheusBase()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.cache.Close()) }()

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	base := "http://" + listener.Addr().String()
	ended := make(chan error, 2)
	for _, part := range []func() error{
		func() error { return s.serve(ctx, listener) },
		func() error { return send(ctx, base, cfg.rate) },
	} {
		go func() {
			err := part()
			stop(err) // one part alone is of no use
			ended <- err
		}()
	}
	banner(stdout, base, dir, opts, cfg.rate)
	err = runPrometheus(ctx, cfg, dir, stdout)
	stop(err)
	return errors.Join(err, <-ended, <-ended)
}

// banner prints what runs, and where.
func banner(out io.Writer, base, dir string, opts aside.Options, rate float64) {
	place := "in memory"
	if len(opts.Redis.InitAddress) > 0 {
		place = fmt.Sprint("on Redis at ", opts.Redis.InitAddress[0])
	}
	fmt.Fprintf(out, `
The graphs are at %[1]s/, of a server that caches %[2]s and gets %[3]v requests a second from this command.
Control-C ends it.

  curl -s '%[1]s/models/3'
  curl -s '%[1]s/metrics'

The files for Prometheus and Grafana are in %[4]s:
prometheus.yml, aside.rules.yml with the alerts, aside.dashboard.json to import into Grafana.

`, base, place, rate, dir)
}

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"
)

// config has the values of the flags.
type config struct {
	addr        string
	catalogue   string
	scale       int
	upstreamMin time.Duration
	upstreamMax time.Duration
	speedup     float64
	db          string
	users       int
	warm        bool
	report      bool
	quick       bool
	requests    int
	callers     int
	seed        uint64
	ttlScale    float64
	opTimeout   time.Duration
}

// Sizes in bytes to which a report repeats the catalogue, without -scale: reportSize by default, quickSize with -quick.
const (
	reportSize = 20 << 20
	quickSize  = 2 << 20
)

const usage = `gateway serves the API of a model gateway through a cache. The cache is on the Redis
of REDIS_URL or REDIS_HOST, or in memory without them. With -report, gateway measures the
effect of the cache.

Flags:
`

// parseFlags reads the command line. Its errors are messages for the user. With -help it prints the help, and returns flag.ErrHelp.
func parseFlags(args []string, output io.Writer) (config, error) {
	var cfg config
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by main
	flags.StringVar(&cfg.addr, "addr", "127.0.0.1:8080", "listen address")
	flags.StringVar(&cfg.catalogue, "catalog", "", "`file` with a catalogue: {\"model id\": {\"litellm_provider\": \"gateway\", ...}, ...} (default: an invented catalogue with 24 gateways)")
	flags.IntVar(&cfg.scale, "scale", 0, "copies of the catalogue, under different ids (default: 1; with -report, as many as make 20 MB, or 2 MB with -quick)")
	flags.DurationVar(&cfg.upstreamMin, "upstream-min", 5*time.Second, "answer time of the fastest upstream, before -speedup")
	flags.DurationVar(&cfg.upstreamMax, "upstream-max", 30*time.Second, "answer time of the slowest upstream, before -speedup")
	flags.Float64Var(&cfg.speedup, "speedup", 100, "compress the upstreams' answer times by this factor; 1 waits the full time")
	flags.StringVar(&cfg.db, "db", "", "`file` of the SQLite database, filled if it is new (default: a temporary one)")
	flags.IntVar(&cfg.users, "users", 0, "users in a new database (default 2000, with -quick 100)")
	flags.BoolVar(&cfg.warm, "warm", true, "at the start, load the catalogues and the rankings that are not cached, while requests are served")
	flags.BoolVar(&cfg.report, "report", false, "send requests with the cache off, with the cache on, and while values expire; print a table of each; exit with status 1 if a target is missed")
	flags.BoolVar(&cfg.quick, "quick", false, "with -report: a smaller run of about fifteen seconds")
	flags.IntVar(&cfg.requests, "requests", 0, "with -report: requests with the cache on (default 60000, with -quick 10000)")
	flags.IntVar(&cfg.callers, "callers", 4, "with -report: concurrent callers")
	flags.Float64Var(&cfg.ttlScale, "ttl-scale", 3600, "with -report: compress the TTLs by this factor in the last part, in which values expire; 3600 makes an hour a second")
	flags.DurationVar(&cfg.opTimeout, "redis-timeout", 50*time.Millisecond, "how long one operation on Redis may take")
	flags.Uint64Var(&cfg.seed, "seed", 1, "seed of the database and of the report's traffic")

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
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if err := cfg.check(given); err != nil {
		return cfg, err
	}
	cfg.setDefaults()
	return cfg, nil
}

func (cfg *config) check(given map[string]bool) error {
	switch {
	case given["scale"] && (cfg.scale < 1 || cfg.scale > 1000):
		return fmt.Errorf("-scale %d: want 1 to 1000", cfg.scale)
	case given["users"] && (cfg.users < 10 || cfg.users > 100_000):
		return fmt.Errorf("-users %d: want 10 to 100000", cfg.users)
	case given["requests"] && (cfg.requests < 100 || cfg.requests > 10_000_000):
		return fmt.Errorf("-requests %d: want 100 to 10000000", cfg.requests)
	case cfg.callers < 1 || cfg.callers > 1000:
		return fmt.Errorf("-callers %d: want 1 to 1000", cfg.callers)
	case cfg.upstreamMin < 0:
		return fmt.Errorf("-upstream-min %v: want 0 or more", cfg.upstreamMin)
	case cfg.upstreamMax < cfg.upstreamMin:
		return fmt.Errorf("-upstream-max %v: want at least -upstream-min, %v", cfg.upstreamMax, cfg.upstreamMin)
	case !(cfg.speedup >= 1 && cfg.speedup <= 1e6): // refuses NaN too
		return fmt.Errorf("-speedup %v: want 1 to 1000000", cfg.speedup)
	case !(cfg.ttlScale >= 60 && cfg.ttlScale <= 100_000): // refuses NaN too
		return fmt.Errorf("-ttl-scale %v: want 60 to 100000", cfg.ttlScale)
	case cfg.compressed(cfg.upstreamMax) > 45*time.Second:
		// A load of the cache ends after 60 s, and a catalogue needs part of that time to be read and joined.
		return fmt.Errorf("-upstream-max %v at -speedup %v: want at most 45s of waiting", cfg.upstreamMax, cfg.speedup)
	}
	for _, name := range []string{"quick", "requests", "callers", "ttl-scale"} {
		if given[name] && !cfg.report {
			return fmt.Errorf("-%s belongs to -report", name)
		}
	}
	if given["warm"] && cfg.report {
		return errors.New("-warm does not belong to -report, which begins with a cold cache")
	}
	return nil
}

func (cfg *config) setDefaults() {
	if cfg.users == 0 {
		cfg.users = 2000
		if cfg.quick {
			cfg.users = 100
		}
	}
	if cfg.requests == 0 {
		cfg.requests = 60_000
		if cfg.quick {
			cfg.requests = 10_000
		}
	}
}

// uncached is the minimum number of requests that a report sends with the cache off. It is enough for a p99, except if each request takes long.
func (cfg *config) uncached() int {
	n := 1000
	if cfg.quick || cfg.speedup < 20 {
		n = 120
	}
	return min(n, cfg.requests)
}

// events is the number of API calls in the database, which the rankings count.
func (cfg *config) events() int { return 150 * cfg.users }

// compressed divides an answer time by -speedup.
func (cfg *config) compressed(wait time.Duration) time.Duration {
	return time.Duration(float64(wait) / cfg.speedup)
}

// openCatalogue reads or composes the catalogue, and repeats it to the required size.
func (cfg *config) openCatalogue() (*catalogue, error) {
	cat := ownCatalogue()
	if cfg.catalogue != "" {
		var err error
		if cat, err = readCatalogue(cfg.catalogue); err != nil {
			return nil, err
		}
	}
	switch {
	case cfg.scale > 0:
		return cat.repeat(cfg.scale), nil
	case cfg.report && cfg.quick:
		return cat.reach(quickSize), nil
	case cfg.report:
		return cat.reach(reportSize), nil
	default:
		return cat, nil
	}
}

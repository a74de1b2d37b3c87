// Freshness shows what the strategies of a policy do when a value expires: on real processes and a real Redis, which it starts, and in a model
// in virtual time. make freshness runs it. It ends with status 1 where a promise is not kept.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/gatewayz/aside/internal/fleet"
	"github.com/gatewayz/aside/internal/redistest"
)

func main() {
	redistest.MaybeSubprocess(map[string]func(){"member": fleet.Member})
	c := fleet.Config{Processes: 8, Process: "member"}
	flag.DurationVar(&c.For, "for", time.Minute, "how long each strategy is run on real processes; 0: the model alone")
	flag.DurationVar(&c.TTL, "ttl", 10*time.Second, "of the values")
	flag.DurationVar(&c.Load, "load", time.Second, "how long a load takes")
	flag.IntVar(&c.Rate, "rate", 1000, "calls a second of all processes together")
	flag.DurationVar(&c.OpTimeout, "optimeout", time.Second, "of the caches: long, so that a busy machine is not taken for a Redis that is away; 0: their default")
	kill := flag.Bool("kill", false, "kill the process that loads, at each third expiry")
	only := flag.String("only", "", "only the strategy of this name")
	virtual := flag.Duration("model", 6000*time.Second, "how long the model runs, in virtual time; 0: not at all")
	flag.Parse()
	if *kill {
		c.KillEvery = 3
	}

	var broken []string
	if c.For > 0 {
		err := redistest.During(func(t testing.TB) { broken = measure(t, c, *only) })
		if err != nil {
			broken = append(broken, err.Error())
		}
	}
	if *virtual > 0 {
		broken = append(broken, simulate(c, *virtual)...)
	}
	if len(broken) > 0 {
		fmt.Printf("\nFAILED:\n%s\n", strings.Join(broken, "\n"))
		os.Exit(1)
	}
}

// strategies are those that are compared on real processes.
func strategies(ttl time.Duration) []fleet.Strategy {
	return []fleet.Strategy{
		{Name: "TTL alone"},
		{Name: "Stale", Stale: ttl},
		{Name: "RefreshAhead", RefreshAhead: 0.1},
		{Name: "both", Stale: ttl, RefreshAhead: 0.1},
	}
}

// measure runs each strategy on real processes.
func measure(t testing.TB, c fleet.Config, only string) (broken []string) {
	fmt.Printf("%d processes, together %d calls a second for one key, TTL %v, load %v, for %v each", c.Processes, c.Rate, c.TTL, c.Load, c.For)
	if c.KillEvery > 0 {
		fmt.Printf("; the process that loads is killed at each third expiry")
	}
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "strategy\tcalls\tloads\texpiries\tloads an expiry, most\tkilled\twaited over 100 ms\tfor a load\tsince Redis was slow\tslowest\toldest\tprocess stalled\tload average\t")
	for _, s := range strategies(c.TTL) {
		if only != "" && s.Name != only {
			continue
		}
		c.Strategy, c.Addr = s, redistest.Start(t).Addr()
		r := fleet.Run(t, c)
		for _, b := range append(r.Broken(c), r.Slow(c)...) {
			broken = append(broken, s.Name+": "+b)
		}
		most := fmt.Sprint(r.Most)
		if r.Killed > 0 {
			most = fmt.Sprintf("%d, %d with a killed one", r.Most, r.MostKill)
		}
		waited := fmt.Sprint(r.Waited)
		if r.Stalled > 0 {
			waited += fmt.Sprintf(" (%d of a process that stood)", r.Stalled)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%d\t%s\t%d\t%d\t%v\t%v\t%v\t%s\t\n", s.Name, r.Calls, r.Loads, r.Expiries, most, r.Killed, waited, r.Missed, r.Fallback,
			r.Slowest.Round(100*time.Microsecond), r.Oldest.Round(time.Millisecond), r.Stall.Round(time.Millisecond), redistest.LoadAverage())
	}
	w.Flush()
	return broken
}

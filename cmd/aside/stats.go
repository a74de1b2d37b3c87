package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

var statsVerb = verb{
	name: "stats", arguments: "", does: "the counters of running processes, a line a label",
	details: `
-api is where a process serves asidehttp.Metrics, or asidehttp.AdminHandler with ?metrics=true;
several can be given. ASIDE_API_KEY has a key with the scope read. The counters are those since
the start of the process.`,
	where: onAPI,
	prepare: func(flags *flag.FlagSet) action {
		var urls names
		flags.Var(&urls, "api", "`URL` of the metrics of a process; can be given several times")
		return func(ctx context.Context, c *call) error {
			apis, err := c.apis(urls...)
			if err != nil {
				return err
			}
			return stats(ctx, c, apis)
		}
	},
}

var watchVerb = verb{
	name: "watch", arguments: "", does: "the rates of running processes, every two seconds",
	details: `
As stats, with differences between two readings of a process, per second. Give the address of
each process: behind a load balancer, readings are of several processes. A reading of another
process, or of one that was started again, is not compared with the one before.`,
	where: onAPI,
	prepare: func(flags *flag.FlagSet) action {
		var urls names
		flags.Var(&urls, "api", "`URL` of the metrics of a process; can be given several times")
		every := flags.Duration("every", 2*time.Second, "`DURATION` between two readings")
		most := flags.Int("n", 0, "end after `N` tables; 0: no limit")
		return func(ctx context.Context, c *call) error {
			apis, err := c.apis(urls...)
			switch {
			case err != nil:
				return err
			case *every < 100*time.Millisecond || *most < 0:
				return usage("-every is less than 100ms, or -n is negative")
			}
			return watch(ctx, c, apis, *every, *most)
		}
	},
}

func stats(ctx context.Context, c *call, apis []api) error {
	all := map[string]map[string]counters{}
	for _, a := range apis {
		r, err := a.read(ctx)
		if err != nil {
			return err
		}
		all[a.url] = r.Labels
	}
	if c.json {
		return writeJSON(c, all)
	}
	for _, a := range apis {
		title(c.out, a, apis)
		w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "LABEL\tHITS\tMISSES\tHIT%\tMEMORY\tREDIS\tSTALE\tLOADS\tMEAN\tERRORS\tFALLBACKS")
		for _, label := range sorted(all[a.url]) {
			m := all[a.url][label]
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t%s\t%d\t%d\n", oneLine(label), m.Hits, m.Misses, percent(m.Hits, m.Misses), m.MemoryHits, m.RedisHits, m.StaleHits,
				m.Loads, show(time.Duration(m.MeanLoadMS*float64(time.Millisecond))), m.Errors, m.Fallbacks)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func title(w io.Writer, a api, all []api) {
	if len(all) > 1 {
		fmt.Fprintln(w, oneLine(a.url))
	}
}

func sorted(labels map[string]counters) []string {
	list := make([]string, 0, len(labels))
	for label := range labels {
		list = append(list, label)
	}
	slices.Sort(list)
	return list
}

func percent(hits, misses uint64) string {
	if hits+misses == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", 100*float64(hits)/float64(hits+misses))
}

func watch(ctx context.Context, c *call, apis []api, every time.Duration, most int) error {
	before := make([]map[string]reading, len(apis)) // by process
	for i, a := range apis {
		r, err := a.read(ctx)
		if err != nil {
			return err
		}
		before[i] = map[string]reading{r.Process: r}
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; most == 0 || n < most; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for i, a := range apis {
			now, err := a.read(ctx)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil: // the process may be started again
				c.complain("watch", err)
				continue
			}
			if earlier, ok := before[i][now.Process]; ok {
				err = c.printRates(a, apis, earlier, now)
			} else {
				fmt.Fprintf(c.err, "aside watch: %s: another process has answered\n", oneLine(a.url))
			}
			if err != nil {
				return err
			}
			before[i][now.Process] = now
		}
	}
	return nil
}

// minus is what a label has counted since an earlier reading. It reports false if the two are not of one process.
func (m counters) minus(before counters) (counters, bool) {
	if m.Hits < before.Hits || m.Misses < before.Misses || m.Loads < before.Loads || m.Errors < before.Errors {
		return counters{}, false
	}
	return counters{
		Hits: m.Hits - before.Hits, Misses: m.Misses - before.Misses, Loads: m.Loads - before.Loads, Errors: m.Errors - before.Errors,
	}, true
}

// since are the differences of all labels. It reports false if the two readings are not of one process: then no label can be compared.
func (r reading) since(before reading) (map[string]counters, bool) {
	differences := map[string]counters{}
	for label := range before.Labels {
		if _, there := r.Labels[label]; !there {
			return nil, false
		}
	}
	for label, m := range r.Labels {
		d, ok := m.minus(before.Labels[label])
		if !ok {
			return nil, false
		}
		differences[label] = d
	}
	return differences, true
}

func (c *call) printRates(a api, all []api, before, now reading) error {
	differences, ok := now.since(before)
	if !ok {
		fmt.Fprintf(c.err, "aside watch: %s: another process has answered, or it was started again\n", oneLine(a.url))
		return nil
	}
	seconds := now.at.Sub(before.at).Seconds()
	type rates struct {
		API    string  `json:"api"`
		Label  string  `json:"label"`
		Hits   float64 `json:"hits_per_second"`
		Misses float64 `json:"misses_per_second"`
		Loads  float64 `json:"loads_per_second"`
		Errors float64 `json:"errors_per_second"`
	}
	title(c.out, a, all)
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	if !c.json {
		fmt.Fprintln(w, strings.Join([]string{now.at.Format("15:04:05"), "HITS/S", "MISSES/S", "HIT%", "LOADS/S", "ERRORS/S"}, "\t"))
	}
	for _, label := range sorted(differences) {
		d := differences[label]
		per := func(n uint64) float64 { return float64(n) / seconds }
		if c.json {
			if err := writeJSON(c, rates{a.url, label, per(d.Hits), per(d.Misses), per(d.Loads), per(d.Errors)}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%s\t%.1f\t%.1f\n", oneLine(label), per(d.Hits), per(d.Misses), percent(d.Hits, d.Misses), per(d.Loads), per(d.Errors))
	}
	return w.Flush()
}

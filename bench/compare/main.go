// Compare measures aside beside what a user would pick instead, each library in the form that is best for it, and prints a table for each
// scenario. It starts a redis-server, or uses an empty one that is given.
//
//	cd bench && go run ./compare                      # everything
//	cd bench && go run ./compare -only near,cold-miss # scenarios whose names begin so
//	cd bench && go run ./compare -quick               # shows that all works
//	make compare DOCS=docs                            # writes docs/performance.md and its plots
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/redistest"
)

type flags struct {
	quick                             bool
	only, redis, catalog, docs, plots string
	rounds                            int
}

func main() {
	var f flags
	flag.BoolVar(&f.quick, "quick", false, "few operations and two rounds: shows that all works")
	flag.StringVar(&f.only, "only", "", "only scenarios whose names begin with one of these, separated by commas")
	flag.StringVar(&f.redis, "redis", "", "address of an empty Redis, whose keys are removed; default: a redis-server is started")
	flag.StringVar(&f.catalog, "catalog", "", "a catalogue of models as JSON for the large value; default: a generated one")
	flag.StringVar(&f.docs, "docs", "", "the directory whose performance.md gets the tables and plots")
	flag.StringVar(&f.plots, "plots", "", "a directory for the plots alone")
	flag.IntVar(&f.rounds, "rounds", 7, "how often each row is measured")
	flag.Parse()
	if err := compare(f); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func compare(f flags) error {
	if f.docs != "" && (f.quick || f.only != "") {
		return errors.New("-docs writes the whole page: it takes neither -quick nor -only")
	}
	if f.redis != "" {
		return show(f.redis, f)
	}
	var failed error
	err := redistest.During(func(t testing.TB) { failed = show(redistest.Start(t).Addr(), f) })
	return errors.Join(failed, err)
}

// show compares on the Redis at addr, and prints and writes what has come of it.
func show(addr string, f flags) error {
	text, results, err := measureAll(addr, f)
	if err != nil {
		return err
	}
	fmt.Print(text)
	if f.plots != "" {
		if err := writePlots(f.plots, results); err != nil {
			return err
		}
	}
	if f.docs != "" {
		return write(f.docs, text, results)
	}
	return nil
}

// measureAll runs the chosen scenarios on the Redis at addr, and returns the page and the results.
func measureAll(addr string, f flags) (string, []result, error) {
	loadBefore := redistest.LoadAverage()
	b, err := newBench(addr)
	if err != nil {
		return "", nil, err
	}
	defer b.conn.Close()
	b.quick, b.rounds, b.budget = f.quick, f.rounds, 300*time.Millisecond
	if f.quick {
		b.rounds, b.budget = 2, 5*time.Millisecond
	}
	var source string
	if b.large, source, err = newCatalogue(f.catalog, b.scaled(largeBytes, largeBytes/20)); err != nil {
		return "", nil, err
	}
	scenarios, err := chosen(slices.Concat(nearScenarios(), redisScenarios(), stampedeScenarios(), batchScenarios(), mixedScenarios(), largeScenarios(), heldScenarios()), f.only)
	if err != nil {
		return "", nil, err
	}
	var results []result
	for _, s := range scenarios {
		began := time.Now()
		r, err := b.run(s)
		if err == nil {
			err = b.flush()
		}
		if err != nil {
			return "", nil, err
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", s.name, time.Since(began).Round(100*time.Millisecond))
		results = append(results, r)
	}
	return page(b, source, loadBefore, results, f.docs != ""), results, nil
}

// chosen are the scenarios whose names begin with one of only, all if that is empty.
func chosen(all []scenario, only string) ([]scenario, error) {
	var out []scenario
	for _, s := range all {
		if slices.ContainsFunc(strings.Split(only, ","), func(prefix string) bool { return strings.HasPrefix(s.name, prefix) }) {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		var names []string
		for _, s := range all {
			names = append(names, s.name)
		}
		return nil, fmt.Errorf("no scenario begins with %q: there are %s", only, strings.Join(names, ", "))
	}
	return out, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A scenario is one table. Lower is better in all columns; the first one is plotted, and decides who is ahead.
type scenario struct {
	name    string // for -only, and of the plot's file
	title   string
	about   string // what an operation is
	columns []column
	rows    []row
	most    int // rounds at most, where each takes long; 0: any number
}

// errNoCall leaves a library out of a scenario.
var errNoCall = errors.New("it has no such call")

// A row is one library in a scenario.
type row struct {
	library
	// open opens connections, fills, and warms. It returns a function that measures one round, and one that closes all.
	open func(b *bench, l library) (round func() (sample, error), close func(), err error)
}

// rowsOf are the libraries of a tier, each with the same open.
func rowsOf(t tier, takesPart func(library) bool, open func(*bench, library) (func() (sample, error), func(), error)) (rows []row) {
	for _, l := range libraries {
		if l.tiers&t != 0 && (takesPart == nil || takesPart(l)) {
			rows = append(rows, row{l, open})
		}
	}
	return rows
}

// A result is what the rounds of a scenario have measured, by row and in the order of the rounds.
type result struct {
	scenario
	rounds [][]sample
}

// run opens all rows, then measures rounds. Each round measures each row once, and begins with another row, so that what else the machine
// does is borne by all.
func (b *bench) run(s scenario) (result, error) {
	out := result{scenario: s}
	out.rows = nil
	var measures []func() (sample, error)
	for _, r := range s.rows {
		measure, closeRow, err := r.open(b, r.library)
		if closeRow != nil {
			defer closeRow()
		}
		if errors.Is(err, errNoCall) {
			continue
		}
		if err != nil {
			return out, fmt.Errorf("%s: %s: %w", s.name, r.name, err)
		}
		out.rows = append(out.rows, r)
		measures = append(measures, measure)
	}
	out.rounds = make([][]sample, len(out.rows))
	rounds := b.rounds
	if s.most > 0 {
		rounds = min(rounds, s.most)
	}
	for round := range rounds {
		for i := range out.rows {
			at := (round + i) % len(out.rows)
			m, err := measures[at]()
			if err != nil {
				return out, fmt.Errorf("%s: %s: %w", s.name, out.rows[at].name, err)
			}
			out.rounds[at] = append(out.rounds[at], m)
		}
	}
	return out, nil
}

// figures are the rounds of one figure of a row.
func (r result) figures(row int, c column) (out []float64) {
	for _, m := range r.rounds[row] {
		out = append(out, m[c])
	}
	return out
}

// base is the row that ratios are relative to: the first one of aside. Without one it is -1.
func (r result) base() int {
	return slices.IndexFunc(r.rows, func(r row) bool { return r.ours() })
}

func (l library) ours() bool { return strings.HasPrefix(l.name, "aside") }

// A source counts the loads of one row. It returns values that were made before.
type source[T any] struct {
	values []T
	loads  atomic.Int64
	takes  time.Duration
}

func (s *source[T]) load(_ context.Context, id int) (T, error) {
	s.loads.Add(1)
	if s.takes > 0 {
		time.Sleep(s.takes)
	}
	return s.values[id%len(s.values)], nil
}

// newEnv is what a row is opened with: keys of its own, an hour as TTL, and room for entries.
func newEnv[T any](b *bench, s *source[T], entries int) env[T] {
	b.opened++
	return env[T]{addr: b.addr, prefix: "row" + strconv.Itoa(b.opened), ttl: time.Hour, entries: entries, load: s.load}
}

// source has the values of all rows, so that nobody is charged for making them.
func (b *bench) source() *source[*product] {
	if b.products == nil {
		b.products = make([]*product, b.scaled(10_000, 500))
		for i := range b.products {
			b.products[i] = newProduct(i)
		}
	}
	return &source[*product]{values: b.products}
}

// check says whether p is what the source has for id.
func (s *source[T]) check(v T, err error, id int) error {
	if p, ok := any(v).(*product); ok && err == nil && p.ID != any(s.values[id%len(s.values)]).(*product).ID {
		return fmt.Errorf("asked for %d, got %d", id, p.ID)
	}
	return err
}

// warmed makes calls until none of them loads or asks Redis: all values are in memory then.
func warmed[T any](b *bench, s *source[T], calls func() error) error {
	return await("all values are in memory", func() (bool, error) {
		var before, after reading
		loaded := s.loads.Load()
		if err := b.server(&before); err != nil {
			return false, err
		}
		if err := calls(); err != nil {
			return false, err
		}
		err := b.server(&after)
		return s.loads.Load() == loaded && after.commands-before.commands < 10, err // a library may ping
	})
}

// withLoads adds the loads of an operation, and fails if there are more than allowed.
func withLoads[T any](s *source[T], n int, most float64, measure func() (sample, error)) (sample, error) {
	before := s.loads.Load()
	m, err := measure()
	if err != nil {
		return nil, err
	}
	m[loads] = float64(s.loads.Load()-before) / float64(n)
	if m[loads] > most {
		return nil, fmt.Errorf("%.3f loads an operation, of %.3f at most", m[loads], most)
	}
	return m, nil
}

// ids are n numbers from first on.
func ids(first, n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = first + i
	}
	return out
}

// zipf returns n numbers below items, the small ones far more often than the large ones.
func zipf(n, items int) []int {
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, uint64(items-1))
	out := make([]int, n)
	for i := range out {
		out[i] = int(z.Uint64())
	}
	return out
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/gatewayz/aside"
)

// The last part of the report: values expire while requests come in. Three servers with caches of their own answer the same requests: one with the
// policies of newPolicies, one with their TTLs alone, and one whose values do not expire during the report. For the first two, all times of the policies
// are divided by -ttl-scale. The servers take turns, so whatever else the machine does slows down all of them.
//
// The backend is that of a quick report. A catalogue of 20 MB that expires each second would keep the machine busy with nothing but loads.
//
// Requests arrive at fixed times, as they do from many users. With callers that wait for one answer before they send the next request, few requests
// would arrive while a value is loaded, and the report would hide what users wait for.

const (
	expiringRate      = 150 // requests a second, to each server
	expiringWindows   = 20  // parts of the time, whose differences say how much chance there is in a percentile
	expiringTTLs      = 20  // the length of the part, in TTLs of a catalogue
	expiringTTLsQuick = 4

	// A TTL that is compressed to a second gets few requests. So they are for few values, and each value is asked for several times in its TTL, as in
	// a gateway with many users.
	expiringGateways = 4
	expiringUsers    = 5
)

// expiringRows are the lines of the part's table, with their requests.
var expiringRows = []struct {
	name, strategy string
	label          string     // in the metrics
	ops            map[op]int // with their weights
}{
	{"catalogues", "Stale, StaleIfError", "models", map[op]int{opModelsAll: 4, opModelsGateway: 46}},
	{"rankings", "RefreshAhead", "rankings", map[op]int{opRankModels: 20, opRankApps: 10}},
	{"credits", "none: fresh only", "user_credits", map[op]int{opCredits: 20}},
}

// expiring is the result of the part.
type expiring struct {
	factor     float64
	start      time.Time
	span, took time.Duration // planned, and measured
	requests   int

	never *expiringSide // nothing expires
	plain *expiringSide // TTLs alone
	ahead *expiringSide // with the strategies
}

// An expiringSide is one of the servers.
type expiringSide struct {
	server   *server
	listener net.Listener
	measured measured
	counts   map[string]aside.LabelMetrics // since the end of the warm-up
}

// runExpiring runs the part.
func runExpiring(ctx context.Context, cfg config, b *backend, opts aside.Options, progress io.Writer, log *slog.Logger) (result *expiring, err error) {
	if !cfg.quick {
		small := cfg
		small.quick, small.catalogue, small.scale, small.db, small.users = true, "", 0, "", 0
		small.setDefaults()
		if b, err = startBackend(ctx, small, log); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, b.close()) }()
	}
	x := &expiring{factor: cfg.ttlScale, span: cfg.expiringSpan()}
	for _, side := range []struct {
		of        **expiringSide
		namespace string // on Redis, the caches have keys of their own
		keys      *policySet
	}{
		{&x.never, "report-never", newPolicies().ttlAlone()},
		{&x.plain, "report-ttl", newPolicies().compressed(cfg.ttlScale).ttlAlone()},
		{&x.ahead, "report-strategies", newPolicies().compressed(cfg.ttlScale)},
	} {
		opts.Namespace, opts.Policies = side.namespace, side.keys.list()
		cache, err := aside.New(opts)
		if err != nil {
			return nil, err
		}
		defer cache.Close()
		if err := connected(ctx, cache); err != nil {
			return nil, err
		}
		*side.of = &expiringSide{server: newServer(b, cache, side.keys, nil, log)}
	}
	// The report leaves no values in a shared Redis, even after an error.
	defer func() {
		for _, side := range x.sides() {
			err = errors.Join(err, invalidate(context.WithoutCancel(ctx), side.server.cache, side.measured.keys()))
		}
	}()

	serving, stop := context.WithCancel(ctx)
	var served sync.WaitGroup
	defer served.Wait()
	defer stop()
	for _, side := range x.sides() {
		side.server.observe = side.measured.observe
		if side.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
		served.Go(func() {
			if err := side.server.serve(serving, side.listener); err != nil {
				log.Error("server ended", "error", err)
			}
		})
	}

	plan := planExpiring(b, cfg)
	if err := x.warmUp(ctx, plan); err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "%-9s  %6d requests to each of three servers, in %v\n", "expiring", len(plan), x.span.Round(time.Second/10))
	before := make(map[*expiringSide]map[string]aside.LabelMetrics)
	for _, side := range x.sides() {
		before[side] = side.server.cache.Metrics().Labels
		side.measured.reset()
	}
	x.start = time.Now()
	x.requests, err = len(plan), x.send(ctx, plan)
	x.took = time.Since(x.start)
	for _, side := range x.sides() {
		side.counts = make(map[string]aside.LabelMetrics)
		for label, m := range side.server.cache.Metrics().Labels {
			m.Loads -= before[side][label].Loads
			m.Refreshes -= before[side][label].Refreshes
			m.NotModified -= before[side][label].NotModified
			side.counts[label] = m
		}
	}
	return x, err
}

func (x *expiring) sides() (list []*expiringSide) {
	for _, side := range []*expiringSide{x.never, x.plain, x.ahead} {
		if side != nil {
			list = append(list, side)
		}
	}
	return list
}

// expiringSpan is the time for which the part sends requests.
func (cfg *config) expiringSpan() time.Duration {
	n := expiringTTLs
	if cfg.quick {
		n = expiringTTLsQuick
	}
	return time.Duration(n) * time.Duration(float64(aside.TTL.ModelsAll.TTL)/cfg.ttlScale)
}

// planExpiring draws the requests of the part, in their order.
func planExpiring(b *backend, cfg config) (plan []call) {
	gateways := b.catalogue.gateways
	p := &planner{rnd: rand.New(rand.NewPCG(cfg.seed, 5)), gateways: gateways[:min(expiringGateways, len(gateways))]}
	p.nextGateway = p.zipf(gatewaySkew, len(p.gateways))
	var deck []op // each op as often as its weight says
	for o := range numOps {
		for _, row := range expiringRows {
			deck = append(deck, slices.Repeat([]op{o}, row.ops[o])...)
		}
	}
	for range max(1, int(cfg.expiringSpan().Seconds()*expiringRate)) {
		user := 1 + p.rnd.IntN(min(expiringUsers, len(b.store.users)))
		plan = append(plan, p.call(deck[p.rnd.IntN(len(deck))], demoKey(user), 0))
	}
	return plan
}

// warmUp sends each different request once, so that the part measures no first visits.
func (x *expiring) warmUp(ctx context.Context, plan []call) error {
	seen := make(map[call]bool)
	var visits []visit
	for _, c := range plan {
		if !seen[c] {
			seen[c] = true
			visits = append(visits, visit{c})
		}
	}
	var done atomic.Int64
	for _, side := range x.sides() {
		if err := drive(ctx, side.base(), visits, 8, &done); err != nil {
			return err
		}
	}
	return nil
}

func (side *expiringSide) base() string { return "http://" + side.listener.Addr().String() }

// send sends each request to all servers, and waits for all answers. It returns the first error. Two requests that come at once would slow down each
// other, and the one that is sent second more often. So the servers get a request one after the other, at equal distances, and take turns to be first.
func (x *expiring) send(ctx context.Context, plan []call) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 2 * time.Minute}
	buffers := sync.Pool{New: func() any { return new([256 << 10]byte) }}
	var running sync.WaitGroup
	start, sides := time.Now(), x.sides()
	for i := range len(plan) * len(sides) {
		timer := time.NewTimer(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(expiringRate*len(sides)))))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			break
		}
		number, turn := turnOf(i, len(sides))
		c, side := plan[number], sides[turn]
		running.Go(func() {
			buffer := buffers.Get().(*[256 << 10]byte)
			defer buffers.Put(buffer)
			if err := c.send(ctx, client, side.base(), buffer[:]); err != nil {
				stop(err)
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

// turnOf returns the number of the i-th request in the plan, and the server that gets it.
func turnOf(i, servers int) (number, server int) {
	return i / servers, (i/servers + i%servers) % servers
}

// An expiringCell has the figures of one row on one server.
type expiringCell struct {
	reads, waited    int
	all, hits        []time.Duration                  // sorted
	windows          [expiringWindows][]time.Duration // the hits by the time at which they began
	loads, refreshes uint64
	notModified      uint64
}

func (x *expiring) cell(side *expiringSide, ops map[op]int, label string) (c expiringCell) {
	for o := range ops {
		for _, s := range side.measured.samples[o] {
			if !good(s) {
				continue
			}
			c.reads++
			c.all = append(c.all, s.took)
			if s.outcome == fromCache {
				c.hits = append(c.hits, s.took)
				window := min(int(s.began.Sub(x.start)*expiringWindows/x.span), expiringWindows-1)
				c.windows[window] = append(c.windows[window], s.took)
			} else {
				c.waited++
			}
		}
	}
	slices.Sort(c.all)
	slices.Sort(c.hits)
	counts := side.counts[label]
	c.loads, c.refreshes, c.notModified = counts.Loads, counts.Refreshes, counts.NotModified
	return c
}

func (x *expiring) print(out io.Writer) error {
	var text strings.Builder
	hour := time.Duration(float64(time.Hour) / x.factor).Round(time.Millisecond)
	fmt.Fprintf(&text, `
Values that expire (-ttl-scale %g: an hour of a TTL is %v). For %v, %d requests arrive at each of three servers, %d a second:
one on which nothing expires, one with TTLs alone, and one with the strategies of its policies. The servers take turns, and each has a cache of its
own. The backend is small, as with -quick. First visits are not counted. Times are in milliseconds.

All reads, where values expire:

`, x.factor, hour, x.took.Round(time.Second/10), x.requests, expiringRate)
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\t\tTTL alone\t\t\t\tstrategies\t\t\t\t\t\tTTL alone / strategies\t\t")
	fmt.Fprintln(w, fmt.Sprintf("%-14s", "area")+"\treads\tloads\twaited\tp50\tp99\tloads\tbehind\tunchanged\twaited\tp50\tp99\tp50\tp99\t")
	for _, row := range expiringRows {
		a, s := x.cell(x.plain, row.ops, row.label), x.cell(x.ahead, row.ops, row.label)
		fmt.Fprintf(w, "%-14s\t%d\t%d\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t\n", row.name, s.reads,
			a.loads, percent(ratio(float64(a.waited), float64(a.reads))), milliseconds(a.all, 50), milliseconds(a.all, 99),
			s.loads, s.refreshes, s.notModified, percent(ratio(float64(s.waited), float64(s.reads))), milliseconds(s.all, 50), milliseconds(s.all, 99),
			times(a.all, s.all, 50), times(a.all, s.all, 99))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	text.WriteString("\nHits alone:\n\n")
	fmt.Fprintln(w, "\tnothing expires\t\t\tTTL alone\t\t\tstrategies\t\t\tstrategies / nothing expires\t")
	fmt.Fprintln(w, fmt.Sprintf("%-14s", "area")+"\thits\tp50\tp99\thits\tp50\tp99\thits\tp50\tp99\tp99 (95% range)\t")
	for _, row := range expiringRows {
		never, ahead := x.cell(x.never, row.ops, row.label), x.cell(x.ahead, row.ops, row.label)
		fmt.Fprintf(w, "%-14s\t", row.name)
		for _, c := range []expiringCell{never, x.cell(x.plain, row.ops, row.label), ahead} {
			fmt.Fprintf(w, "%d\t%s\t%s\t", len(c.hits), milliseconds(c.hits, 50), milliseconds(c.hits, 99))
		}
		fmt.Fprintf(w, "%s %s\t\n", times(ahead.hits, never.hits, 99), spreadOf(ahead.windows[:], never.windows[:], 99))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	text.WriteString("\nThe strategies are:")
	for i, row := range expiringRows {
		text.WriteString(map[bool]string{true: " ", false: "; "}[i == 0] + row.name + " " + row.strategy)
	}
	fmt.Fprintf(&text, `.
"waited" is the share of reads that waited for a load, and "behind" are the loads in the background, for which nobody waits. "unchanged" are the loads
that ended with a 304 or its like: the upstreams have said that the cached value is still right. With TTLs alone no value is left to ask about. In
the first table a ratio above 1 says that reads are faster with the strategies. A read that comes during a load is a hit with the strategies, and
none without. In the second one a ratio above 1 says that hits are slower with the strategies than if nothing expires. The range has 95%% of the
ratios that other choices of the %d parts of the time would give (bootstrap): if it contains 1, the difference is within noise.
`, expiringWindows)
	if x.took > x.span*5/4 {
		fmt.Fprintf(&text, "The requests took %v in place of %v: the machine was too busy, and the figures of this part say little.\n", x.took.Round(time.Second/10), x.span)
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// times is the ratio of two percentiles.
func times(a, b []time.Duration, p float64) string {
	if len(a) == 0 || len(b) == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", ratio(float64(percentile(a, p)), float64(percentile(b, p))))
}

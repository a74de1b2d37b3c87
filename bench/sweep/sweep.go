package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/wire"
)

type config struct {
	keys, size int
	cluster    bool
	quiet      time.Duration
}

// A report is what one sweep has come to.
type report struct {
	config
	removed        int64
	took           time.Duration // from the invalidation to the end of the sweep
	cpu            time.Duration // of the servers, meanwhile
	alone, beside  latencies     // of another client's GETs: without a sweep, and beside it
	long           int           // how many commands took over longCommand at a server during the sweep
	longest        time.Duration // of these
	longestCommand string
}

// longCommand is from when on a command counts as long: it delays every client of the server.
const longCommand = time.Millisecond

func (r report) String() string {
	on := "one server"
	if r.cluster {
		on = "cluster of three primaries"
	}
	text := fmt.Sprintf("%s, %d values: %d removed in %.1f s, %.0f a second, CPU of Redis %.1f s\n", on, r.keys, r.removed, r.took.Seconds(),
		float64(r.removed)/r.took.Seconds(), r.cpu.Seconds())
	text += fmt.Sprintf("GETs of another client: beside the sweep %v; without %v\n", r.beside, r.alone)
	text += fmt.Sprintf("commands over %v at the server: %d", longCommand, r.long)
	if r.long > 0 {
		text += fmt.Sprintf(", the longest %v (%s)", r.longest, r.longestCommand)
	}
	return text
}

// latencies are those of the calls of one client, which sends the next one when it has its answer.
type latencies []time.Duration

func (l latencies) String() string {
	if len(l) == 0 {
		return "none"
	}
	slices.Sort(l)
	at := func(share float64) time.Duration { return l[int(share*float64(len(l)-1))].Round(time.Microsecond) }
	return fmt.Sprintf("p50 %v, p99 %v, max %v (%d)", at(0.5), at(0.99), at(1), len(l))
}

var items = aside.Policy{Name: "items", Category: "items", TTL: time.Hour}

// measure fills a category, invalidates it, and waits until Redis has no value of it left.
func measure(t testing.TB, c config) report {
	servers, addrs := start(t, c.cluster)
	other, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: addrs, ForceSingleClient: !c.cluster, DisableCache: true})
	must(t, err)
	defer other.Close()
	cache, err := aside.New(aside.Options{
		Redis:    rueidis.ClientOption{InitAddress: addrs, ForceSingleClient: !c.cluster},
		Policies: []aside.Policy{items}, OpTimeout: 10 * time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	defer cache.Close()
	ctx := context.Background()
	fill(t, cache, other, c)
	must(t, other.Do(ctx, other.B().Set().Key("other").Value("v").Build()).Error())
	get := func() time.Duration {
		sent := time.Now()
		must(t, other.Do(ctx, other.B().Get().Key("other").Build()).Error())
		return time.Since(sent)
	}
	r := report{config: c}
	for began := time.Now(); time.Since(began) < c.quiet; {
		r.alone = append(r.alone, get())
	}
	for _, s := range servers {
		s.MustDo(t, "CONFIG", "SET", "slowlog-log-slower-than", strconv.Itoa(int(longCommand.Microseconds())), "slowlog-max-len", "100000")
		s.MustDo(t, "SLOWLOG", "RESET")
		r.cpu -= cpuOf(t, s)
	}

	began := time.Now()
	receipt, err := cache.InvalidateCategory(ctx, items.Category)
	must(t, err)
	over := make(chan error, 1)
	go func() {
		r.removed, err = receipt.WaitCleanup(ctx)
		r.took = time.Since(began)
		over <- err
	}()
	for sweeping := true; sweeping; {
		r.beside = append(r.beside, get())
		select {
		case err := <-over:
			must(t, err)
			sweeping = false
		default:
		}
	}
	for _, s := range servers {
		r.cpu += cpuOf(t, s)
		r.long += addLong(t, s, &r)
		if left := s.MustDo(t, "DBSIZE").(int64); left > 100 {
			t.Errorf("%d keys are left at %s", left, s.Addr())
		}
	}
	if r.removed != int64(c.keys) {
		t.Errorf("%d values were counted as removed, and there were %d", r.removed, c.keys)
	}
	return r
}

// start starts the servers, and returns the primaries.
func start(t testing.TB, cluster bool) (servers []*redistest.Server, addrs []string) {
	if cluster {
		c := redistest.StartCluster(t)
		return c.Primaries(), c.Addrs()
	}
	s := redistest.Start(t)
	return []*redistest.Server{s}, []string{s.Addr()}
}

// fill stores the values as caches do, but many at once.
func fill(t testing.TB, cache *aside.Cache, client rueidis.Client, c config) {
	ctx := context.Background()
	first := items.Key("first")
	must(t, aside.Set(ctx, cache, first, "v")) // the tags have generations from now on
	var tags []wire.Tag
	for _, name := range []string{"%all", "%c:items"} {
		text, err := client.Do(ctx, client.B().Get().Key(name).Build()).ToString()
		must(t, err)
		g, err := strconv.ParseUint(text, 10, 64)
		must(t, err)
		tags = append(tags, wire.Tag{Name: name, Generation: g})
	}
	_, err := cache.Invalidate(ctx, first)
	must(t, err)
	now := time.Now()
	payload := []byte(strconv.Quote(string(bytes.Repeat([]byte("x"), max(2, c.size)-2))))
	for from := 0; from < c.keys; from += 10_000 {
		var cmds rueidis.Commands
		for i := from; i < min(c.keys, from+10_000); i++ {
			key := items.Key("bulk", i).String()
			v, err := wire.Encode(key, wire.Header{
				Codec: wire.ID(wire.JSON), LoadStart: now.UnixMicro(), FreshUntil: now.Add(time.Hour).UnixMicro(), DeadUntil: now.Add(time.Hour).UnixMicro(),
				Nonce: wire.NewNonce(), Tags: tags,
			}, payload, wire.Limits{MaxValue: c.size + 1000})
			must(t, err)
			cmds = append(cmds, client.B().Set().Key(key).Value(rueidis.BinaryString(v)).Px(time.Hour).Build())
		}
		for _, r := range client.DoMulti(ctx, cmds...) {
			must(t, r.Error())
		}
	}
}

// cpuOf is the processor time that a server has used.
func cpuOf(t testing.TB, s *redistest.Server) (sum time.Duration) {
	for line := range strings.Lines(s.MustDo(t, "INFO", "cpu").(string)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := strconv.ParseFloat(value, 64)
			must(t, err)
			sum += time.Duration(seconds * float64(time.Second))
		}
	}
	return sum
}

// addLong notes the longest of a server's long commands, and returns how many there were.
func addLong(t testing.TB, s *redistest.Server, r *report) int {
	entries := s.MustDo(t, "SLOWLOG", "GET", "-1").([]any)
	for _, e := range entries {
		entry := e.([]any)
		if took := time.Duration(entry[2].(int64)) * time.Microsecond; took > r.longest {
			r.longest, r.longestCommand = took, entry[3].([]any)[0].(string)
		}
	}
	return len(entries)
}

func must(t testing.TB, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

package bench

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/redistest"
)

// BenchmarkTrackingModes compares the ways in which a server can tell clients of changes, by what they cost it: its own time for a
// read of 1.6 KB with 32 under way at once, and what it sends to a fleet of 100 for one change of a key that a single client has read.
// Each mode is read as the client library does: OPTIN with CLIENT CACHING YES before each read, the others with an ECHO.
func BenchmarkTrackingModes(b *testing.B) {
	for _, mode := range []struct {
		name    string
		options []string
		off     bool
	}{
		{name: "none", off: true},
		{name: "OPTIN", options: nil},
		{name: "OPTOUT", options: []string{"OPTOUT"}},
		{name: "BCAST", options: []string{"BCAST", "PREFIX", "models:"}},
	} {
		b.Run(mode.name, func(b *testing.B) {
			server := redistest.Start(b)
			open := func() rueidis.Client {
				o := redisAt(server.Addr())
				o.ClientTrackingOptions, o.DisableCache = mode.options, mode.off
				o.PipelineMultiplex = -1
				o.NewCacheStoreFn = func(rueidis.CacheStoreOption) rueidis.CacheStore { return nothing{} }
				c, err := rueidis.NewClient(o)
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(c.Close)
				return c
			}
			ctx, c := context.Background(), open()
			const keys = 10_000
			for i := range keys {
				if err := c.Do(ctx, c.B().Set().Key(name(i)).Value(strings.Repeat("v", 1600)).Build()).Error(); err != nil {
					b.Fatal(err)
				}
			}
			before := memory(b, server)
			began := serverTime(b, server)
			b.ResetTimer()
			for done := 0; done < b.N; done += 32 {
				var reads []rueidis.CacheableTTL
				for i := range 32 {
					reads = append(reads, rueidis.CT(c.B().Getrange().Key(name((done+i)%keys)).Start(0).End(1<<20).Cache().ToStaticTTL(), time.Hour))
				}
				for _, r := range c.DoMultiCache(ctx, reads...) {
					if err := r.Error(); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.StopTimer()
			b.ReportMetric(float64((serverTime(b, server)-began).Nanoseconds())/float64(b.N)/1000, "server-µs/read")
			if b.N >= keys {
				b.ReportMetric(float64(memory(b, server)-before)/keys, "server-B/key")
			}
			for range 99 {
				other := open()
				if err := other.Do(ctx, other.B().Ping().Build()).Error(); err != nil {
					b.Fatal(err)
				}
			}
			const changes = 100
			sent := number(b, server, "stats", "total_net_output_bytes")
			for i := range changes {
				server.MustDo(b, "SET", name(i), "changed")
			}
			b.ReportMetric(float64(number(b, server, "stats", "total_net_output_bytes")-sent)/changes, "sent-B/change")
		})
	}
}

func name(i int) string { return "models:" + strconv.Itoa(i) }

// nothing is a cache of the client library's that keeps nothing.
type nothing struct{}

func (nothing) Flight(string, string, time.Duration, time.Time) (m rueidis.RedisMessage, e rueidis.CacheEntry) {
	return m, nil
}
func (nothing) Update(string, string, rueidis.RedisMessage) int64 { return 0 }
func (nothing) Cancel(string, string, error)                      {}
func (nothing) Delete([]rueidis.RedisMessage)                     {}
func (nothing) Close(error)                                       {}

func number(b *testing.B, server *redistest.Server, section, field string) int64 {
	for line := range strings.Lines(server.MustDo(b, "INFO", section).(string)) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				b.Fatal(err)
			}
			if strings.HasPrefix(field, "used_cpu") {
				n *= 1e9
			}
			return int64(n)
		}
	}
	b.Fatalf("INFO %s has no %s", section, field)
	return 0
}

func memory(b *testing.B, server *redistest.Server) int64 {
	return number(b, server, "memory", "used_memory")
}

// serverTime is the processor time that the server has used.
func serverTime(b *testing.B, server *redistest.Server) time.Duration {
	return time.Duration(number(b, server, "cpu", "used_cpu_user") + number(b, server, "cpu", "used_cpu_sys"))
}

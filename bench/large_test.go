package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

var blobs = aside.Policy{Name: "blobs", Category: "blobs", TTL: time.Hour}

// BenchmarkSmallBesideLarge is a Strong hit on a small value, which is read in Redis each time, while another goroutine of the
// process reads one of 20 MB there over and over.
func BenchmarkSmallBesideLarge(b *testing.B) {
	large := make([]byte, 20<<20)
	_, _ = rand.Read(large)
	small := []byte("small")
	for name, c := range map[string]struct{ chunkFrom, size int }{
		"alone": {0, 0}, "in-chunks": {0, len(large)}, "in-one-piece": {-1, len(large)},
	} {
		b.Run(name, func(b *testing.B) {
			cache, err := aside.New(aside.Options{
				Redis: redisAt(redistest.Start(b).Addr()), OpTimeout: 5 * time.Second, ChunkFrom: c.chunkFrom, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				b.Fatal(err)
			}
			defer cache.Close()
			for cache.Health().State != aside.StateConnected {
				time.Sleep(time.Millisecond)
			}
			ctx, stop := context.WithCancel(b.Context())
			defer stop()
			read := func(id string, want []byte) {
				v, err := aside.GetOrLoad(ctx, cache, blobs.Key(id), func(context.Context) ([]byte, error) { return want, nil }, aside.Strong())
				if ctx.Err() == nil && (err != nil || !bytes.Equal(v, want)) {
					b.Error(len(v), err)
				}
			}
			for id, v := range map[string][]byte{"small": small, "large": large[:c.size]} {
				if err := aside.Set(ctx, cache, blobs.Key(id), v); err != nil {
					b.Fatal(err)
				}
			}
			over := make(chan struct{})
			go func() {
				defer close(over)
				for c.size > 0 && ctx.Err() == nil {
					read("large", large)
				}
			}()
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				read("small", small)
				took = append(took, time.Since(began))
			}
			stop()
			<-over
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

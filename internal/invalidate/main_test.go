package invalidate

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside/internal/backoff"
	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/scan"
	"github.com/gatewayz/aside/internal/stats"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bound = 20 * time.Second

var errClosed = errors.New("closed")

// A fixture is an Invalidator, and what it works with.
type fixture struct {
	*Invalidator
	clock   *near.Clock
	memory  *near.Cache
	journal *journal.Journal
	tags    *tags.Registry
	backoff *backoff.Table
	metrics stats.Registry
	close   func() // waits for what runs in the background
}

func newFixture(t *testing.T, j *journal.Journal, hook func(Event)) *fixture {
	t.Helper()
	f := &fixture{clock: near.NewClock(), journal: j}
	f.memory = near.New(near.Options{MaxEntries: 1000, MaxBytes: 1 << 20}, f.clock)
	f.tags, f.backoff = tags.New(f.memory, f.clock), backoff.New(f.clock, time.Minute, time.Hour)
	var background sync.WaitGroup
	closed := make(chan struct{})
	f.close = sync.OnceFunc(func() {
		close(closed)
		background.Wait()
		f.backoff.Close()
		f.memory.Close()
		f.clock.Stop()
	})
	t.Cleanup(f.close)
	f.Invalidator = New(Options{
		Near: f.memory, Clock: f.clock, Journal: j, Tags: f.tags, Backoff: f.backoff, Metrics: &f.metrics,
		OnInvalidated: hook, Logger: slog.New(slog.DiscardHandler), Go: background.Go, Closed: closed, ErrClosed: errClosed,
	})
	return f
}

func inMemory(t *testing.T, hook func(Event)) *fixture {
	t.Helper()
	return newFixture(t, nil, hook)
}

// onRedis is a fixture that reaches a server through proxy.
func onRedis(t *testing.T, hook func(Event)) (f *fixture, server *redistest.Server, proxy *redistest.Proxy) {
	t.Helper()
	server = redistest.Start(t)
	proxy = redistest.StartProxy(t, server.Addr())
	f = newFixture(t, journal.New(), hook)
	store := redisstore.Open(redisstore.Options{
		Client:    rueidis.ClientOption{InitAddress: []string{proxy.Addr()}, ForceSingleClient: true},
		OpTimeout: bound, Lease: bound, Pushed: f.Pushed, Gap: f.Gap, OnWatermark: f.journal.Recover, Clock: f.clock,
		Format: redisstore.Format{
			Magic: wire.Magic, Version: wire.Version, Flags: wire.KnownFlags, LoadStart: wire.LoadStartOffset,
			Nonce: wire.NonceOffset, Chunked: wire.ChunkedFlag, Extended: wire.ExtendedFlag, TagsLen: wire.TagsLenOffset, Tags: wire.HeaderLen,
		},
	})
	f.tags.Connect(store, f.journal.Contains)
	scanner := scan.New(scan.Options{
		Store: store, Named: func(key string) string { return key }, Categories: func() []string { return []string{"items"} },
		Unconfirmed: f.journal.Contains, Logger: slog.New(slog.DiscardHandler), Now: f.clock.Now,
	})
	ctx, stop := context.WithCancel(context.Background())
	f.Connect(ctx, store, scan.NewSweeper(scanner, new(atomic.Uint64)), scanner)
	t.Cleanup(func() { stop(); store.Close() }) // before what newFixture ends
	require.Eventually(t, store.Up, bound, time.Millisecond)
	return f, server, proxy
}

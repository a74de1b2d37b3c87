package scan

import (
	"bytes"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	bound = 20 * time.Second
	now   = uint64(1_763_950_000_000_000) // the generation of all tags of these tests
)

var formatOfValues = redisstore.Format{
	Magic: wire.Magic, Version: wire.Version, Flags: wire.KnownFlags, LoadStart: wire.LoadStartOffset,
	Nonce: wire.NonceOffset, Chunked: wire.ChunkedFlag, Extended: wire.ExtendedFlag, TagsLen: wire.TagsLenOffset, Tags: wire.HeaderLen,
}

// A fixture is a server, and a Scanner that knows the categories "items" and "users".
type fixture struct {
	*Scanner
	server *redistest.Server
	proxy  *redistest.Proxy // between the Scanner and the server
	asked  atomic.Int64     // how often the Scanner has asked for the time, to log a failure
	log    bytes.Buffer
}

func newFixture(t *testing.T, unconfirmed ...string) *fixture {
	t.Helper()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	store := redisstore.Open(redisstore.Options{
		Client:    rueidis.ClientOption{InitAddress: []string{proxy.Addr()}, ForceSingleClient: true},
		OpTimeout: bound, Lease: bound,
		Format: formatOfValues,
	})
	t.Cleanup(store.Close)
	require.Eventually(t, store.Up, bound, time.Millisecond)
	f := &fixture{server: server, proxy: proxy}
	f.Scanner = New(Options{
		Store: store, Named: func(key string) string { return key }, Categories: func() []string { return []string{"items", "users"} },
		Unconfirmed: func(name string) bool { return slices.Contains(unconfirmed, name) },
		Logger:      slog.New(slog.NewTextHandler(&f.log, nil)), Now: func() int64 { f.asked.Add(1); return 1 },
	})
	return f
}

// bump gives tags the generation that they have in these tests.
func (f *fixture) bump(t *testing.T, tags ...string) {
	t.Helper()
	for _, tag := range tags {
		f.server.MustDo(t, "SET", tag, strconv.FormatUint(now, 10))
	}
}

// put stores a value that carries the tags of its category and of everything, and others.
func (f *fixture) put(t *testing.T, key string, change func(*wire.Header), tags ...wire.Tag) {
	t.Helper()
	f.server.MustDo(t, "SET", key, valueOf(t, key, change, tags...))
}

// valueOf is such a value.
func valueOf(t *testing.T, key string, change func(*wire.Header), tags ...wire.Tag) string {
	t.Helper()
	began := time.Now().Add(-time.Minute)
	h := wire.Header{
		LoadStart: began.UnixMicro(), FreshUntil: began.Add(time.Hour).UnixMicro(), DeadUntil: began.Add(time.Hour).UnixMicro(), Nonce: wire.NewNonce(),
		Tags: append([]wire.Tag{{Name: keyspace.All, Generation: now}, {Name: keyspace.CategoryTag(keyspace.CategoryOf(key)), Generation: now}}, tags...),
	}
	if change != nil {
		change(&h)
	}
	value, err := wire.Encode(key, h, []byte("a payload"), wire.Limits{MaxValue: 1000, CompressFrom: -1})
	require.NoError(t, err)
	return string(value)
}

// left are those of keys that are still there.
func (f *fixture) left(t *testing.T, keys ...string) (left []string) {
	t.Helper()
	for _, key := range keys {
		if f.server.MustDo(t, "EXISTS", key).(int64) == 1 {
			left = append(left, key)
		}
	}
	return left
}

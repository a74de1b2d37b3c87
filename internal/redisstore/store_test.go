package redisstore

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var bound = redistest.Patience

// only is the link of a store on one server.
func only(s *Store) *link { return s.table.Load().only() }

func open(t *testing.T, o Options) *Store {
	t.Helper()
	o.Lease = bound // nobody renews it
	if o.OpTimeout == 0 {
		o.OpTimeout = 5 * time.Second
	}
	s := Open(o)
	t.Cleanup(s.Close)
	return s
}

func connected(t *testing.T, addr string) *Store {
	t.Helper()
	return up(t, Options{Client: clientOf(addr), Format: format})
}

func up(t *testing.T, o Options) *Store {
	t.Helper()
	s := open(t, o)
	require.Eventually(t, func() bool { return s.State().Up }, bound, time.Millisecond)
	return s
}

func clientOf(addr string) rueidis.ClientOption {
	o := clients(addr)
	o.ForceSingleClient = true
	return o
}

// clients are those that do not give a connection up where a busy machine stands still for a second.
func clients(addrs ...string) rueidis.ClientOption {
	o := rueidis.ClientOption{InitAddress: addrs, ConnWriteTimeout: 2500 * time.Millisecond}
	o.Dialer.KeepAlive = 250 * time.Millisecond
	return o
}

var format = Format{Magic: "\xc1\xa5", Version: 1, Flags: 7, LoadStart: 8, Nonce: 48, Chunked: 4}

// entry is the start of a value of the format, as far as scripts look, and a text.
func entry(version, flags byte, start int64, text string) string {
	head := append([]byte(format.Magic), version, flags, 0, 0, 0, 0)
	return string(binary.LittleEndian.AppendUint64(head, uint64(start))) + text
}

// everyServer runs a test on a real server and on miniredis, so that users can test with the latter.
func everyServer(t *testing.T, test func(t *testing.T, s *Store, do func(args ...string) any)) {
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		test(t, connected(t, server.Addr()), func(args ...string) any { return server.MustDo(t, args...) })
	})
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		addr := miniredis.RunT(t).Addr()
		conn := redistest.Raw(t, addr)
		test(t, connected(t, addr), func(args ...string) any {
			v, err := conn.Do(args...)
			require.NoError(t, err)
			return v
		})
	})
}

const (
	key   = "cat:a"
	lease = "{cat:a}!l"
)

func grants(g []Grant, _ []Generation) []Grant { return g }

func acquireOne(t *testing.T, s *Store, nonce string, r Rejected) Grant {
	t.Helper()
	g := grants(s.Acquire(t.Context(), nil, Request{Key: key, Nonce: nonce, Rejected: r}))[0]
	require.NoError(t, g.Err)
	return g
}

func fillOne(t *testing.T, s *Store, nonce, value string, life time.Duration) Outcome {
	t.Helper()
	now, _, ok := s.Now("")
	require.True(t, ok)
	out, errs := s.Fill(t.Context(), Filling{Key: key, Nonce: nonce, Value: []byte(value), Until: now + life.Microseconds()})
	require.NoError(t, errs[0])
	return out[0]
}

func TestEachKeyOfABatchHasItsOwnAnswer(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		do("SET", "a", "value")
		do("SET", "{b}!l", "another's", "PX", "60000")
		do("RPUSH", "l", "x")
		reads := s.Get(t.Context(), Get{Key: "a"}, Get{Key: "b"}, Get{Key: "l"})
		require.Equal(t, "value", string(reads[0].Value))
		require.Equal(t, Read{}, reads[1])
		require.Error(t, reads[2].Err)
		asked := grants(s.Acquire(t.Context(), nil, Request{Key: "a", Nonce: "n"}, Request{Key: "b", Nonce: "n"}, Request{Key: "c", Nonce: "n"}))
		require.True(t, asked[0].Present)
		require.False(t, asked[1].Granted)
		require.True(t, asked[2].Granted)
		require.Empty(t, s.Get(t.Context()))
		require.Empty(t, grants(s.Acquire(t.Context(), nil)))
	})
}

func TestWithoutAConnectionEveryOperationFailsAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Client: clientOf("127.0.0.1:1")})
	require.ErrorIs(t, s.Get(t.Context(), Get{Key: key})[0].Err, ErrUnavailable)
	require.ErrorIs(t, grants(s.Acquire(t.Context(), nil, Request{Key: key}))[0].Err, ErrUnavailable)
	_, errs := s.Fill(t.Context(), Filling{Key: key})
	require.ErrorIs(t, errs[0], ErrUnavailable)
	_, errs = s.Remove(t.Context(), key)
	require.ErrorIs(t, errs[0], ErrUnavailable)
	_, _, known := s.Now("")
	require.False(t, known)
	require.Eventually(t, func() bool { return s.State().Cause != nil }, bound, time.Millisecond)
	require.False(t, s.State().Up)
}

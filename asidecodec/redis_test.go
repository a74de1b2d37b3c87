package asidecodec_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidecodec"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/wire"
)

// onRedis returns a cache that is connected, and what it has logged.
func onRedis(t *testing.T, server *redistest.Server) (*aside.Cache, *lines) {
	t.Helper()
	logged := new(lines)
	c, err := aside.New(aside.Options{
		Redis:  rueidis.ClientOption{InitAddress: []string{server.Addr()}},
		Logger: slog.New(slog.NewTextHandler(logged, nil)),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, c.Ready(ctx))
	return c, logged
}

func policy(c aside.Codec) aside.Policy {
	return aside.Policy{Name: "sessions", Category: "sessions", TTL: time.Hour, Codec: c}
}

type session struct {
	User  string
	Admin bool
}

// stores loads a value, and waits until Redis has it.
func stores[T any](t *testing.T, server *redistest.Server, c *aside.Cache, p aside.Policy, v T) (stored string) {
	t.Helper()
	_, err := aside.GetOrLoad(t.Context(), c, p.Key("s1"), func(context.Context) (T, error) { return v, nil })
	require.NoError(t, err)
	deadline := time.Now().Add(time.Minute)
	for stored == "" {
		require.True(t, time.Now().Before(deadline), "Redis has the value")
		text, err := server.Do("GET", "sessions:s1")
		require.NoError(t, err)
		stored, _ = text.(string)
	}
	return stored
}

// asks returns what a new process gets, which would load v, and what its log says.
func asks[T any](t *testing.T, server *redistest.Server, p aside.Policy, v T) (aside.Result[T], string) {
	t.Helper()
	c, logged := onRedis(t, server)
	r, err := aside.Lookup(t.Context(), c, p.Key("s1"), func(context.Context) (T, error) { return v, nil })
	require.NoError(t, err)
	return r, logged.String()
}

func TestProtobufOnRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := policy(asidecodec.Protobuf())
	at := timestamppb.New(time.Unix(1, 2))
	c, logged := onRedis(t, server)
	stores(t, server, c, p, at)
	r, _ := asks(t, server, p, new(timestamppb.Timestamp))
	require.Equal(t, aside.StatusHit, r.Status)
	require.True(t, proto.Equal(at, r.Value))
	require.NoError(t, c.Close())
	require.NotContains(t, logged.String(), "level=WARN", "the values of the first fills were found unchanged")
}

// The callers get a value that the codec refuses, and the log says why.
func TestProtobufSaysWhyItRefusesAType(t *testing.T) {
	t.Parallel()
	c, logged := onRedis(t, redistest.Start(t))
	p := policy(asidecodec.Protobuf())
	v, err := aside.GetOrLoad(t.Context(), c, p.Key("s1"), func(context.Context) (session, error) { return session{User: "alice"}, nil })
	require.NoError(t, err)
	require.Equal(t, "alice", v.User)
	require.NoError(t, c.Close())
	require.Contains(t, logged.String(), "session is not a pointer to a protobuf message: use another codec")
	require.NotContains(t, logged.String(), "alice")
}

func TestTwoProcessesRotateKeysOnRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	old, both, only := policy(encrypting(t, aside.JSON, key("old"))), policy(encrypting(t, aside.JSON, key("new"), key("old"))), policy(encrypting(t, aside.JSON, key("new")))
	alice := session{User: "alice"}
	c, logged := onRedis(t, server)
	stored := stores(t, server, c, old, alice)
	require.NotContains(t, stored, "alice")
	r, _ := asks(t, server, both, session{})
	require.Equal(t, aside.StatusHit, r.Status)
	require.Equal(t, alice, r.Value)
	r, log := asks(t, server, only, session{User: "loaded"})
	require.Equal(t, aside.StatusMiss, r.Status)
	require.Equal(t, "loaded", r.Value.User)
	require.Contains(t, log, `encrypted with the key \"old\", which Encryption.Keys does not have`)
	require.NotContains(t, log, "secret of")

	// A process with both keys encrypts with the new one.
	next, _ := onRedis(t, server)
	_, err := next.Invalidate(t.Context(), both.Key("s1"))
	require.NoError(t, err)
	stores(t, server, next, both, session{User: "bob"})
	r, _ = asks(t, server, only, session{})
	require.Equal(t, aside.StatusHit, r.Status)
	require.Equal(t, "bob", r.Value.User)
	require.NoError(t, c.Close())
	require.NotContains(t, logged.String(), "level=WARN")
}

// Who can write to Redis can write an envelope, whose checksum has no secret.
func TestWhatWasChangedInRedisIsAMiss(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	codec := encrypting(t, aside.JSON, key("a"))
	p, lim := policy(codec), wire.Limits{MaxValue: 1 << 20, CompressFrom: -1}
	c, _ := onRedis(t, server)
	stored := stores(t, server, c, p, session{User: "alice"})
	header, payload, err := wire.Decode("sessions:s1", []byte(stored), lim)
	require.NoError(t, err)
	forge := func(h wire.Header, payload []byte) {
		t.Helper()
		value, err := wire.Encode("sessions:s1", h, payload, lim)
		require.NoError(t, err)
		server.MustDo(t, "SET", "sessions:s1", string(value), "PX", "3600000")
	}
	forge(header, payload)
	r, _ := asks(t, server, p, session{})
	require.Equal(t, aside.StatusHit, r.Status, "the forgery itself is accepted, if it changes nothing")
	require.Equal(t, "alice", r.Value.User)

	missed := func(why string) {
		t.Helper()
		r, log := asks(t, server, p, session{User: "loaded"})
		require.Equal(t, aside.StatusMiss, r.Status, "%+v", r.Value)
		require.Equal(t, "loaded", r.Value.User)
		require.Contains(t, log, why)
	}
	changed := []byte(string(payload))
	changed[len(changed)-20] ^= 1
	forge(header, changed)
	missed("not authentic")
	forge(header, payload[:len(payload)-1])
	missed("not authentic")
	forge(header, nil)
	missed("cut short")

	// In clear text, as a codec that each process has.
	clear, err := json.Marshal(session{"mallory", true})
	require.NoError(t, err)
	plain := header
	plain.Codec = wire.ID(wire.JSON)
	forge(plain, clear)
	missed("stored with a codec that the policy does not use")
	r, _ = asks(t, server, policy(nil), session{})
	require.Equal(t, session{"mallory", true}, r.Value, "a policy with another codec reads it")
}

// lines collects what a cache logs.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

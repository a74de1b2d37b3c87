package redisstore

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redistest"
)

// storeAndRead fills key under a new lease, and reads it back.
func storeAndRead(t *testing.T, s *Store, key, nonce string, f *near.Fence) (Outcome, Read) {
	t.Helper()
	g := grants(s.Acquire(t.Context(), nil, Request{Key: key, Nonce: nonce}))[0]
	require.NoError(t, g.Err)
	require.True(t, g.Granted)
	fill := Filling{Key: key, Nonce: nonce, Value: []byte("value"), Until: g.Now + time.Minute.Microseconds(), Empty: g.Empty}
	outcomes, reads, errs := s.FillAndRead(t.Context(), []Filling{fill}, []Get{{Key: key, Fence: f, Head: 3}})
	require.NoError(t, errs[0])
	return outcomes[0], reads[0]
}

func TestAFilledValueIsReadBackInTheSameRoundTrip(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	memory := newMemory(t)
	s := up(t, Options{Client: clientOf(proxy.Addr()), Format: format, Pushed: memory.Push})
	require.Nil(t, lookAt(t, s, memory, key).Value, "so the server pushes the fill")
	for _, forgotten := range []bool{false, true} {
		if forgotten {
			server.MustDo(t, "SCRIPT", "FLUSH")
		}
		server.MustDo(t, "DEL", key)
		f := memory.Fence(key, nil)
		defer f.End()
		proxy.ResetCounts()
		outcome, head := storeAndRead(t, s, key, "n", f)
		require.Equal(t, Stored, outcome)
		require.Equal(t, "val", string(head.Value))
		require.NoError(t, head.Err)
		require.True(t, head.Validity.Valid())
		require.False(t, f.Broken(), "by the push of its own fill")
		if !forgotten {
			require.Equal(t, 2, proxy.Requests(), "the lease, and the fill with what is read back")
		}
		server.MustDo(t, "SET", key, "another's")
		require.Eventually(t, f.Broken, bound, time.Millisecond)
	}
}

func TestAFillThatIsRefusedReadsWhatIsThere(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	memory := newMemory(t)
	s := up(t, Options{Client: clientOf(server.Addr()), Format: format, Pushed: memory.Push})
	f := memory.Fence(key, nil)
	defer f.End()
	server.MustDo(t, "SET", key, "theirs")
	fills := []Filling{{Key: key, Nonce: "lost", Value: []byte("value"), Empty: true}, {Key: "cat:chunked", Nonce: "lost", Value: []byte("v"), Chunks: [][]byte{{1}}}}
	outcomes, reads, errs := s.FillAndRead(t.Context(), fills, []Get{{Key: key, Fence: f}, {Key: "cat:chunked"}})
	require.Equal(t, []Outcome{Refused, Refused}, outcomes)
	require.Equal(t, []error{nil, nil}, errs)
	require.Equal(t, "theirs", string(reads[0].Value))
	require.Empty(t, reads[1].Value)
}

// Where a client has several connections, the push of the fill and the reply to the read may come by different ones.
func TestAFillOfAClientWithSeveralConnectionsIsReadBackAfterIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	memory := newMemory(t)
	client := clientOf(proxy.Addr())
	client.PipelineMultiplex = 2
	s := up(t, Options{Client: client, Format: format, Pushed: memory.Push, OpTimeout: bound})
	fills := proxy.HoldReplies(func(args []string) bool { return len(args) > 1 && args[1] == fillEmpty.sha1 })
	over := make(chan Read, 1)
	f := memory.Fence(key, nil)
	defer f.End()
	go func() {
		_, head := storeAndRead(t, s, key, "n", f)
		over <- head
	}()
	fills.Wait(t)
	require.False(t, slices.ContainsFunc(proxy.Log(), func(args []string) bool { return len(args) > 1 && args[0] == "GETRANGE" && args[1] == key }))
	fills.Release()
	require.True(t, (<-over).Validity.Valid())
}

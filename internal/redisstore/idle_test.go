package redisstore

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redistest"
)

// restless is a store whose connections rest soon, what counts the calls of its users, and a tracked read.
func restless(t *testing.T, asked func() uint64) (s *Store, server *redistest.Server, read func() *near.Validity) {
	return restlessOf(t, redistest.Start(t), Options{Idling: Idling{Calls: asked, After: 2 * time.Second}})
}

// restlessOf is restless with options.
func restlessOf(t *testing.T, of *redistest.Server, o Options) (s *Store, server *redistest.Server, read func() *near.Validity) {
	server = of
	server.MustDo(t, "SET", key, "value")
	o.Client, o.Format = clientOf(server.Addr()), format
	s = up(t, o)
	clock := near.NewClock()
	t.Cleanup(clock.Stop)
	memory := near.New(near.Options{MaxEntries: 100, MaxBytes: 1 << 20}, clock)
	t.Cleanup(memory.Close)
	return s, server, func() *near.Validity {
		f := memory.Fence(key, nil)
		defer f.End()
		r := s.Get(context.Background(), Get{Key: key, Fence: f})[0]
		require.NoError(t, r.Err)
		require.NotNil(t, r.Validity)
		return r.Validity
	}
}

// atRest waits until a server has been sent several PINGs in a row, and nothing else.
func atRest(t *testing.T, server *redistest.Server) {
	t.Helper()
	const row = 5 // a connection that is tried each second is sent two at most between two tries
	tries, pings := server.Calls(t, "evalsha"), server.Calls(t, "ping")
	require.Eventually(t, func() bool {
		if now := server.Calls(t, "evalsha"); now != tries {
			tries, pings = now, server.Calls(t, "ping")
		}
		return server.Calls(t, "ping") >= pings+row
	}, bound, 20*time.Millisecond)
}

func TestConnectionsRestWhereNothingIsAsked(t *testing.T) {
	t.Parallel()
	_, server, read := restless(t, func() uint64 { return 7 })
	v := read()
	require.True(t, v.Valid())
	atRest(t, server)
	require.False(t, v.Valid(), "nobody would notice that the server tells of no change any more")

	tries := server.Calls(t, "evalsha")
	v = read()
	require.True(t, v.Valid())
	require.Eventually(t, func() bool { return server.Calls(t, "evalsha") > tries }, bound, time.Millisecond, "the read wakes them")
	require.True(t, v.Valid(), "nothing was wrong")
}

func TestConnectionsDoNotRestWhereMemoryAnswersAll(t *testing.T) {
	t.Parallel()
	var calls atomic.Uint64
	_, server, read := restless(t, func() uint64 { return calls.Add(1) })
	v, tries := read(), server.Calls(t, "evalsha")
	require.Eventually(t, func() bool { return server.Calls(t, "evalsha") >= tries+5 }, bound, 10*time.Millisecond)
	require.True(t, v.Valid())
}

// A process that only invalidates has nothing in memory. But whether the server still knows of what it has invalidated must be seen to.
func TestAnInvalidationWakesConnectionsFromTheirRest(t *testing.T) {
	t.Parallel()
	s, server, _ := restless(t, func() uint64 { return 7 })
	atRest(t, server)
	tries := server.Calls(t, "evalsha")
	require.NoError(t, s.WriteWatermark(t.Context(), 1))
	require.Eventually(t, func() bool { return server.Calls(t, "evalsha") >= tries+3 }, bound, time.Millisecond, "the mark is one")
	atRest(t, server)
}

// A process that only Sets asks for nothing, and reads what it has stored.
func TestConnectionsDoNotRestWhileSomethingIsRead(t *testing.T) {
	t.Parallel()
	_, _, read := restless(t, func() uint64 { return 7 })
	first, began := read(), time.Now()
	require.Eventually(t, func() bool {
		read()
		return time.Since(began) > 4*time.Second
	}, bound, 50*time.Millisecond)
	require.True(t, first.Valid())
}

// A mark is written again each minute, so that it is not evicted.
func TestTheSameMarkHasConnectionsTriedOnce(t *testing.T) {
	t.Parallel()
	var gaps atomic.Int64
	server := redistest.Start(t)
	s := up(t, Options{
		Client: clientOf(server.Addr()), Format: format, Gap: func() { gaps.Add(1) },
		Idling: Idling{Calls: func() uint64 { return 7 }, After: 4 * time.Second},
	})
	require.NoError(t, s.WriteWatermark(t.Context(), 1))
	atRest(t, server)
	tries, before := server.Calls(t, "evalsha"), gaps.Load()
	require.NoError(t, s.WriteWatermark(t.Context(), 1))
	require.Eventually(t, func() bool { return server.Calls(t, "evalsha") >= tries+2 }, bound, time.Millisecond, "the mark is one")
	atRest(t, server)
	require.LessOrEqual(t, server.Calls(t, "evalsha"), tries+3)
	require.Equal(t, before, gaps.Load(), "no validity was in use")
}

// marked notes the marks that a store finds.
type marked struct {
	mu   sync.Mutex
	list []uint64
}

func (m *marked) note(mark uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, mark)
}

func (m *marked) all() []uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]uint64(nil), m.list...)
}

// 1. This process has invalidated something, has written that down, and asks for nothing any more.
// 2. The data is exchanged for what it was before, in which there is no mark of this process.
// 3. The mark is written again, as it is each minute and after each further invalidation. Whoever looks for it afterwards finds it.
func TestAMarkIsNotWrittenOverOtherDataWhileConnectionsRest(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var found marked
	s := up(t, Options{
		Client: clientOf(server.Addr()), Format: format, OnWatermark: found.note,
		Idling: Idling{Calls: func() uint64 { return 7 }, After: 2 * time.Second},
	})
	require.NoError(t, s.WriteWatermark(t.Context(), 1))
	atRest(t, server)
	before := len(found.all())
	server.MustDo(t, "SWAPDB", "0", "1")
	require.Eventually(t, func() bool {
		_ = s.WriteWatermark(t.Context(), 1)
		return len(found.all()) > before
	}, bound, 100*time.Millisecond, "the exchange is noticed")
	require.Zero(t, found.all()[before], "the data knows of no invalidation")
}

// The same while connections are tried: between the exchange and the next trial.
func TestAMarkIsNotWrittenOverOtherDataBeforeItIsNoticed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var found marked
	s := up(t, Options{Client: clientOf(server.Addr()), Format: format, OnWatermark: found.note})
	require.NoError(t, s.WriteWatermark(t.Context(), 1))
	tries := server.Calls(t, "evalsha")
	require.Eventually(t, func() bool { return server.Calls(t, "evalsha") > tries }, bound, time.Millisecond) // a trial is over
	before := len(found.all())
	server.MustDo(t, "SWAPDB", "0", "1")
	require.Eventually(t, func() bool {
		_ = s.WriteWatermark(t.Context(), 2)
		return len(found.all()) > before
	}, bound, 10*time.Millisecond, "the exchange is noticed")
	require.Zero(t, found.all()[before], "the data knows of no invalidation")
}

func TestAMarkThatWasEvictedIsWrittenAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var found marked
	s := up(t, Options{Client: clientOf(server.Addr()), Format: format, OnWatermark: found.note})
	require.NoError(t, s.WriteWatermark(t.Context(), 1))
	name := only(s).ownName(watermarkName)
	before := len(found.all())
	server.MustDo(t, "DEL", name)
	require.Eventually(t, func() bool { return s.WriteWatermark(t.Context(), 2) == nil }, bound, 10*time.Millisecond)
	require.Equal(t, "2", server.MustDo(t, "GET", name))
	require.Len(t, found.all(), before, "nothing is sent again")
}

// The data has no watermark yet, as after a first exchange, and is exchanged for earlier data that has one.
func TestAMarkIsNotWrittenOverOneWhereThereWasNone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var found marked
	s := up(t, Options{Client: clientOf(server.Addr()), Format: format, OnWatermark: found.note})
	require.Zero(t, only(s).watermark.last.Load())
	name := only(s).ownName(watermarkName)
	before := len(found.all())
	server.MustDo(t, "SET", name, "1")
	require.NoError(t, s.WriteWatermark(t.Context(), 3))
	require.Equal(t, []uint64{1}, found.all()[before:], "what came after the first one is sent again")
	require.Equal(t, "1", server.MustDo(t, "GET", name), "and no other one is written before")
	require.NoError(t, s.WriteWatermark(t.Context(), 4))
	require.Equal(t, "4", server.MustDo(t, "GET", name))
}

// 1. This process has written a mark, and invalidates something.
// 2. The data is exchanged for a copy from before that, which has the mark, or for data without a mark where none was written yet.
// 3. The next mark is written over it, before a round has compared the data. It says nothing of what the data has.
func TestAMarkThatWasWrittenSinceTheLastTrialSaysNothing(t *testing.T) {
	t.Parallel()
	for _, first := range []uint64{0, 1} {
		t.Run(strconv.FormatUint(first, 10), func(t *testing.T) {
			t.Parallel()
			for deadline := time.Now().Add(3 * time.Minute); ; {
				server := redistest.Start(t)
				var found marked
				s := up(t, Options{Client: clientOf(server.Addr()), Format: format, OnWatermark: found.note})
				if first > 0 {
					require.NoError(t, s.WriteWatermark(t.Context(), first))
					server.MustDo(t, "COPY", only(s).ownName(watermarkName), only(s).ownName(watermarkName), "DB", "1")
				}
				tries := server.Calls(t, "evalsha")
				require.Eventually(t, func() bool { return server.Calls(t, "evalsha") >= tries+3 }, bound, time.Millisecond) // a whole trial is over
				before := len(found.all())
				server.MustDo(t, "SWAPDB", "0", "1")
				err := s.WriteWatermark(t.Context(), first+1)
				inTime := err == nil && len(found.all()) == before // the exchange was not noticed before
				require.Eventually(t, func() bool { return len(found.all()) > before }, bound, time.Millisecond, "the exchange is noticed")
				require.LessOrEqual(t, found.all()[before], first)
				if inTime {
					return
				}
				require.True(t, time.Now().Before(deadline), "the mark was never written in time")
			}
		})
	}
}

// A slowRead writes a watermark after each GET, before its reply is seen.
type slowRead struct {
	rueidis.Client
	behind func()
}

func (c slowRead) Do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	reply := c.Client.Do(ctx, command)
	c.behind()
	return reply
}

// A watermark that is read while another one is written is not taken for the last one: data with one in between would not be found.
func TestAMarkThatIsReadWhileAnotherOneIsWrittenIsReadAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var found marked
	s := up(t, Options{Client: clientOf(server.Addr()), Format: format, OnWatermark: found.note})
	before, reads := len(found.all()), 0
	slow := slowRead{only(s).latest.Load().client, func() {
		if reads++; reads <= 2 {
			require.NoError(t, s.WriteWatermark(t.Context(), uint64(10*reads)))
		}
	}}
	require.NoError(t, s.readWatermark(t.Context(), only(s), slow))
	require.Equal(t, 3, reads)
	require.Equal(t, []uint64{20}, found.all()[before:])
	require.EqualValues(t, 20, only(s).watermark.last.Load())
}

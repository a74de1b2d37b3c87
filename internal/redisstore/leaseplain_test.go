package redisstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

func TestALeaseThatIsNotNeededIsGivenBackAtOnce(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		require.Equal(t, []Read{{}}, s.Get(t.Context(), Get{Key: key}))
		do("SET", key, "stored since then")
		g := acquireOne(t, s, "n", Rejected{})
		require.True(t, g.Present)
		require.False(t, g.Granted)
		require.Equal(t, int64(0), do("EXISTS", lease), "who rejects that value waits for nobody")
	})
}

// Hazard 181. Nobody releases a lease of which ErrUnavailable says that it was not asked for.
func TestALeaseThatIsHeldIsNotTakenForOneThatWasNotAskedFor(t *testing.T) {
	t.Parallel()
	for name, reqs := range map[string]int{"the release is not sent": 1, "the rest of a large batch is not sent": 400} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			proxy := redistest.StartProxy(t, server.Addr())
			s := up(t, Options{Client: clientOf(proxy.Addr()), Format: format})
			tags := []Tag{{Key: "%t:a"}, {Key: "%t:b"}}
			asked := make([]Request, reqs)
			for i := range asked {
				asked[i] = Request{Key: key, Nonce: "n"}
			}
			last := lease // of those that the first round trip has asked for
			if reqs > 1 {
				for i := range asked {
					asked[i].Key = fmt.Sprint("cat:", i)
				}
				last = leaseKey(asked[(pipeline-1-len(tags)-1)/3].Key)
			} else {
				server.MustDo(t, "SET", key, "stored since then")
			}
			taken := proxy.HoldReplies(func(args []string) bool { return len(args) > 1 && args[0] == "SET" && args[1] == last })
			got := make(chan []Grant, 1)
			go func() { got <- grants(s.Acquire(t.Context(), tags, asked...)) }()
			taken.Wait(t)
			probes := proxy.HoldRequests(func(args []string) bool { return args[0] == "TIME" })
			l := only(s)
			l.trip(l.session.Load(), errBroken)
			taken.Release()
			all := <-got
			probes.Release()
			unasked := 0
			for i, g := range all {
				if errors.Is(g.Err, ErrUnavailable) {
					unasked++
					require.Equal(t, int64(0), server.MustDo(t, "EXISTS", leaseKey(asked[i].Key)), i)
				}
			}
			if reqs == 1 {
				require.Error(t, all[0].Err)
				require.Equal(t, "n", server.MustDo(t, "GET", lease))
			} else {
				require.Positive(t, unasked)
				require.Equal(t, int64(1), server.MustDo(t, "EXISTS", last))
			}
		})
	}
}

// Hazard 181. A large batch asks in several round trips. The reply to one may be lost, and that to the next one come by another connection.
func TestALeaseWhoseReplyWasLostIsNotTakenForOneThatIsNotNeeded(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := connected(t, server.Addr())
	server.MustDo(t, "SET", key, "stored since then")
	var replies []rueidis.RedisResult
	for _, c := range s.askPlainly(nil, Request{Key: key, Nonce: "n"}) {
		replies = append(replies, s.run(t.Context(), []call{c})...)
	}
	replies[1] = rueidis.NewErrorResult(io.EOF)
	g, then := parsePlainly(replies)
	require.ErrorIs(t, g.Err, io.EOF, "its caller releases it")
	require.Nil(t, then)
}

func TestAServerWithoutMemoryForALeaseSaysWhatItHas(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := connected(t, server.Addr())
	server.MustDo(t, "SET", key, "stored since then")
	server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
	require.True(t, acquireOne(t, s, "n", Rejected{}).Present)
	server.MustDo(t, "DEL", key)
	require.ErrorContains(t, grants(s.Acquire(t.Context(), nil, Request{Key: key, Nonce: "n"}))[0].Err, "OOM")
}

func TestOnlyALeaseOfAnEmptyKeySaysSo(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		require.True(t, acquireOne(t, s, "a", Rejected{}).Empty)
		require.False(t, grants(s.Seize(t.Context(), nil, Request{Key: key, Nonce: "b"}))[0].Empty, "who seizes it has not looked")
		do("DEL", lease)
		do("SET", key, "old")
		require.False(t, acquireOne(t, s, "c", Reject([]byte("old"), 3, false)).Empty)
		do("DEL", lease, key)
		do("RPUSH", key, "x")
		g := acquireOne(t, s, "d", Rejected{})
		require.True(t, g.Granted, "what is no string is no value")
		require.False(t, g.Empty, "but it is there")
	})
}

func TestTheFillOfAnEmptyKeyIsRefusedWithoutItsLease(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		filling := func(nonce, value string) Filling {
			now, _, _ := s.Now(key)
			return Filling{Key: key, Nonce: nonce, Value: []byte(value), Until: now + time.Minute.Microseconds(), Empty: true}
		}
		fill := func(f Filling) Outcome {
			require.Same(t, fillEmpty, s.filling(f).script)
			out, errs := s.Fill(t.Context(), f)
			require.NoError(t, errs[0])
			return out[0]
		}
		require.True(t, acquireOne(t, s, "invalidated", Rejected{}).Empty)
		_, errs := s.Remove(t.Context(), key)
		require.Nil(t, errs)
		require.Equal(t, Refused, fill(filling("invalidated", "older")))
		require.Equal(t, int64(0), do("EXISTS", key, lease))

		require.True(t, acquireOne(t, s, "superseded", Rejected{}).Empty)
		require.True(t, grants(s.Seize(t.Context(), nil, Request{Key: key, Nonce: "another's"}))[0].Granted)
		require.Equal(t, Stored, fillOne(t, s, "another's", "newer", time.Minute))
		require.Equal(t, Refused, fill(filling("superseded", "older")))
		require.Equal(t, "newer", do("GET", key))

		do("DEL", key)
		require.True(t, acquireOne(t, s, "mine", Rejected{}).Empty)
		require.Equal(t, Stored, fill(filling("mine", "ours")))
		require.Equal(t, "ours", do("GET", key))
		require.Greater(t, do("PTTL", key), int64(50_000))
		require.Equal(t, int64(0), do("EXISTS", lease), "a lease fills once")

		do("DEL", key)
		require.True(t, acquireOne(t, s, "late", Rejected{}).Empty)
		late := filling("late", "dead")
		late.Until -= 2 * time.Minute.Microseconds()
		fill(late)
		require.Nil(t, do("GET", key))
	})
}

// A without is a client of a server that knows no SET with PXAT.
type without struct{ rueidis.Client }

func (c without) DoMulti(ctx context.Context, cmds ...rueidis.Completed) []rueidis.RedisResult {
	for i, cmd := range cmds {
		if args := cmd.Commands(); len(args) > 1 && args[1] == fillEmpty.sha1 {
			cmds[i] = c.B().Eval().Script("return redis.error_reply('ERR syntax error')").Numkeys(0).Build()
		}
	}
	return c.Client.DoMulti(ctx, cmds...)
}

func TestAServerBeforePXATIsUsedWithoutIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := connected(t, server.Addr())
	f := Filling{Key: key, Nonce: "n", Value: []byte("ours"), Empty: true}
	require.Same(t, fillEmpty, s.filling(f).script)
	l := only(s)
	require.NoError(t, s.checkCommands(t.Context(), l, without{l.session.Load().client}))
	require.Same(t, fill, s.filling(f).script)
	require.NoError(t, s.checkCommands(t.Context(), l, l.session.Load().client))
	require.Same(t, fillEmpty, s.filling(f).script, "it was replaced by a newer one")
	f.Chunks = [][]byte{nil}
	require.Same(t, fill, s.filling(f).script, "chunks have to be prolonged")
}

// Hazard 183: a node answers TIME also for a key that it has lost.
func TestALeaseOfAKeyThatHasMovedIsDatedByItsNewNode(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	s := up(t, inCluster(cluster.Addrs()...))
	key, before := nameAt(s, 0, "cat:moved"), s.table.Load()
	to := at(t, cluster, s, 1)
	cluster.BeginMigration(redistest.Slot(key), to).Finish()
	require.Eventually(t, func() bool {
		s.table.Store(before) // until the background finds out
		g := grants(s.Acquire(t.Context(), nil, Request{Key: key, Nonce: "n"}))[0]
		require.NoError(t, g.Err)
		require.True(t, g.Granted)
		require.Equal(t, "n", to.MustDo(t, "GET", leaseKey(key)))
		to.MustDo(t, "DEL", leaseKey(key))
		return !g.Empty // the script was sent after the node had moved it
	}, bound, time.Millisecond)
}

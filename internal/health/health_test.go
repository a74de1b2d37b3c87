package health

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redisstore"
)

// A connection that comes and goes is a few lines, and then one in five seconds, which says how it stands by then.
func TestAConnectionThatComesAndGoesIsNotALineEachTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		l := NewLog(slog.New(slog.NewTextHandler(&out, nil)))
		lines := func() []string {
			synctest.Wait()
			return strings.Split(strings.TrimSpace(out.take()), "\n")
		}
		up, down := redisstore.State{Up: true}, redisstore.State{Cause: errors.New("gone")}
		flap := func(times int) {
			for range times {
				l.Changed(down, 0)
				time.Sleep(time.Millisecond)
				l.Changed(up, 0)
				time.Sleep(time.Millisecond)
			}
		}
		flap(500)
		require.Len(t, lines(), lineBurst)
		time.Sleep(linePause)
		late := lines()
		require.Len(t, late, 1)
		require.Contains(t, late[0], "connected to redis")
		require.Contains(t, late[0], "suppressed=995")
		flap(1000) // 2 s
		l.Changed(down, 0)
		time.Sleep(2 * linePause)
		late = lines()
		require.Len(t, late, 1)
		require.Contains(t, late[0], "redis unavailable")
		require.Contains(t, late[0], "suppressed=2000")
		time.Sleep(time.Hour)
		l.Changed(up, 0)
		late = lines()
		require.Contains(t, late[0], "connected to redis")
		require.NotContains(t, late[0], "suppressed")
		flap(500)
		l.Stop()
		lines()
		time.Sleep(time.Hour)
		require.Equal(t, []string{""}, lines(), "nothing after Close")
	})
}

// A connection breaks, and then there is a reason why no other one can be made.
func TestTheReasonThatLastsIsLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		l := NewLog(slog.New(slog.NewTextHandler(&out, nil)))
		defer l.Stop()
		var mu sync.Mutex
		var now redisstore.State
		is := func(s redisstore.State) { mu.Lock(); defer mu.Unlock(); now = s }
		l.Ask(func() redisstore.State { mu.Lock(); defer mu.Unlock(); return now })
		lines := func(pause time.Duration) []string {
			time.Sleep(pause)
			synctest.Wait()
			return strings.FieldsFunc(out.take(), func(r rune) bool { return r == '\n' })
		}
		gone, refused, late := redisstore.State{Cause: errors.New("gone")}, redisstore.State{Cause: syscall.ECONNREFUSED}, redisstore.State{Cause: os.ErrDeadlineExceeded}
		is(gone)
		l.Changed(gone, 0)
		require.Len(t, lines(0), 1)
		for range 9 { // which last a second each
			is(late)
			require.Empty(t, lines(time.Second/2))
			is(refused)
			require.Empty(t, lines(time.Second/2))
		}
		said := lines(reasonPause)
		require.Len(t, said, 1)
		require.Contains(t, said[0], "connection refused")
		require.NotContains(t, said[0], "suppressed")
		require.Empty(t, lines(time.Hour), "it is the same")
		is(late)
		require.Len(t, lines(time.Hour), 1)
		is(refused)
		l.Changed(redisstore.State{Up: true}, 0)
		require.Len(t, lines(0), 1)
		require.Empty(t, lines(time.Hour), "it is back")
		l.Changed(gone, 0)
		l.Stop()
		require.Len(t, lines(time.Hour), 1, "nothing after Close")
	})
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// take returns what was written, and forgets it.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := b.buf.String()
	b.buf.Reset()
	return text
}

func TestAReasonSaysWhyRedisIsNotInUse(t *testing.T) {
	t.Parallel()
	require.Equal(t, "connecting to redis", Reason(redisstore.State{}))
	require.Contains(t, Reason(redisstore.State{Cause: syscall.ECONNREFUSED}), "connection refused")
	require.Contains(t, Untracked(redisstore.State{Up: true}), "no client tracking")
	require.NotContains(t, Untracked(redisstore.State{Up: true}), "PUBLISH")
	require.Contains(t, Untracked(redisstore.State{Up: true, Silent: true}), "PUBLISH")
}

func TestAServerThatRefusesPUBLISHIsAWarning(t *testing.T) {
	t.Parallel()
	var out lockedBuffer
	l := NewLog(slog.New(slog.NewTextHandler(&out, nil)))
	defer l.Stop()
	l.Changed(redisstore.State{Up: true, Silent: true}, 0)
	line := out.take()
	require.Contains(t, line, "level=WARN msg=\"aside: connected to redis, which refuses PUBLISH")
	require.Contains(t, line, "max_age=1s")
	require.WithinDuration(t, time.Now(), l.Began(), time.Minute)
}

func TestTheEndOfAnOutageSaysHowLongAndWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		l := NewLog(slog.New(slog.NewTextHandler(&out, nil)))
		defer l.Stop()
		up := redisstore.State{Up: true}
		l.Changed(up, 5)
		require.NotContains(t, out.take(), "away", "there was no outage before the first connection")
		for range 2 {
			time.Sleep(time.Hour)
			l.Changed(redisstore.State{Cause: errors.New("gone")}, 0)
			time.Sleep(time.Second)
			l.Changed(redisstore.State{Cause: syscall.ECONNREFUSED}, 0)
			time.Sleep(time.Minute)
			out.take()
			l.Changed(up, 7)
			line := out.take()
			require.Contains(t, line, "level=INFO msg=\"aside: connected to redis\" away=1m1s cause=\"redis cannot be reached: nothing listens")
			require.Contains(t, line, "replayed=7\n")
		}
	})
}

func TestNodesOfAClusterAreLoggedEach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		l := NewLog(slog.New(slog.NewTextHandler(&out, nil)))
		up, down := redisstore.State{Up: true}, redisstore.State{Cause: syscall.ECONNREFUSED}
		for _, addr := range []string{"a:1", "b:1"} {
			l.Node(addr, redisstore.State{}, false)
			l.Node(addr, up, false)
		}
		require.Empty(t, out.take(), "as it should be")
		l.Node("a:1", down, false)
		require.Regexp(t, `level=WARN msg="aside: a node of the cluster is unavailable" node=a:1 cause="redis cannot be reached: nothing listens[^"]*"`+"\n$", out.take())
		l.Node("b:1", down, false)
		require.Contains(t, out.take(), "node=b:1")
		time.Sleep(time.Minute)
		l.Node("a:1", up, false)
		require.Regexp(t, `level=INFO msg="aside: connected to a node of the cluster" node=a:1 away=1m0s cause="redis cannot be reached[^"]*"`+"\n$", out.take())
		for range 100 { // each node has its own few lines
			l.Node("a:1", down, false)
			l.Node("a:1", up, false)
		}
		require.Equal(t, lineBurst-1, strings.Count(out.take(), "\n"))
		l.Node("b:1", up, true)
		l.Node("b:1", up, false)
		l.Node("c:1", down, true)
		l.Node("a:1", redisstore.State{}, true)
		time.Sleep(time.Hour)
		require.Empty(t, out.take(), "nodes that have left the cluster")
		l.Node("a:1", down, false)
		require.NotEmpty(t, out.take())
		l.Stop()
		l.Node("a:1", up, false)
		l.Node("d:1", down, false)
		require.Empty(t, out.take())
	})
}

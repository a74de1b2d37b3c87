package faults_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// What docs/messages.md lists for a cache in memory that no other test causes. In a bubble nothing has to be awaited but the calls themselves.
func TestWhatAProgramDoesWrongIsLogged(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for line, c := range map[string]struct {
		options func(o *aside.Options)
		cause   func(t *testing.T, c *aside.Cache)
	}{
		"aside: HashID used without Options.Secret: guessable ids can be recovered from keys": {
			cause: func(_ *testing.T, c *aside.Cache) { c.HashID("an id") },
		},
		"aside: Options.OnInvalidated panicked": {
			options: func(o *aside.Options) { o.OnInvalidated = func(aside.Invalidation) { panic("oops") } },
			cause: func(t *testing.T, c *aside.Cache) {
				_, err := c.Invalidate(ctx, asidetest.Items.Key("a"))
				require.NoError(t, err)
			},
		},
		"aside: inconsistent cached value: its loader returns a different value, and no invalidation was received": {
			options: func(o *aside.Options) {
				o.ConsistencyCheck = aside.ConsistencyCheck{SampleRate: 1, SettleTime: time.Second, MaxPerSecond: -1}
			},
			cause: func(t *testing.T, c *aside.Cache) {
				for _, v := range []string{"old", "new"} {
					_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), asidetest.Value(v))
					require.NoError(t, err)
				}
				time.Sleep(time.Minute) // the source is asked again, and still says so
			},
		},
		"aside: Close gave up waiting for loaders that ignore context cancellation": {
			cause: func(t *testing.T, c *aside.Cache) {
				release := make(chan struct{})
				go func() {
					_, _ = aside.GetOrLoad(ctx, c, asidetest.Items.Key("a"), func(context.Context) (string, error) { <-release; return "v", nil })
				}()
				synctest.Wait()
				require.NoError(t, c.Close())
				close(release)
			},
		},
		"aside: Close gave up waiting for calls or OnInvalidated: a codec, or OnInvalidated itself, does not return": {
			options: func(o *aside.Options) { o.OnInvalidated = func(aside.Invalidation) { time.Sleep(time.Hour) } },
			cause: func(t *testing.T, c *aside.Cache) {
				go func() { _, _ = c.Invalidate(ctx, asidetest.Items.Key("a")) }()
				synctest.Wait()
				require.NoError(t, c.Close())
				time.Sleep(2 * time.Hour) // it returns at last
			},
		},
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log asidetest.Logbook
				o := aside.Options{Logger: log.Logger()}
				if c.options != nil {
					c.options(&o)
				}
				cache, err := aside.New(o)
				require.NoError(t, err)
				c.cause(t, cache)
				require.NoError(t, cache.Close())
				require.Equal(t, 1, strings.Count(log.String(), line), "%s", log.String())
			})
		})
	}
}

func TestASearchThatIsRefusedIsLogged(t *testing.T) {
	t.Parallel()
	if asidetest.InCluster {
		t.Skip("one server is told here what it may not do")
	}
	server := redistest.Start(t)
	var log asidetest.Logbook
	o := asidetest.Anonymously(server.Addr())
	o.Logger = log.Logger()
	c := asidetest.Connected(t, o)
	server.MustDo(t, "ACL", "SETUSER", "default", "-scan")
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan aside.Receipt, 1)
	go func() {
		r, _ := c.InvalidatePattern(ctx, asidetest.Items.Match(aside.Wildcard))
		result <- r
	}()
	asidetest.Eventually(t, "it is logged", func() bool {
		return strings.Contains(log.String(), "aside: SCAN failed, will retry")
	})
	cancel()
	<-result
	server.MustDo(t, "ACL", "SETUSER", "default", "+scan")
}

// The log names the reason that Redis is away for also where it is another one than that of the first line.
func TestTheLogNamesTheReasonThatLasts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var log asidetest.Logbook
	o := asidetest.At(server.Addr())
	o.Logger = log.Logger()
	c := asidetest.Connected(t, o)
	server.Kill()
	asidetest.Eventually(t, "it is known why there is no connection", func() bool { return c.Health().Reason == asidetest.ConnectionRefused })
	const pause = 10 * time.Second
	const away = "aside: redis unavailable"
	require.Eventually(t, func() bool { return log.With(away, asidetest.ConnectionRefused) > 0 }, pause+asidetest.Bound, 10*time.Millisecond, "it is logged")
	require.Equal(t, 1, log.With("aside: connected to redis"), log.String())
	require.Equal(t, 2, log.With(away), "broken, refused: %s", log.String()) // a node of a cluster has lines of its own
}

// The reason stays the same where a server says something else that is for the log alone.
func TestTheLogHasTheLastWordsOfTheServer(t *testing.T) {
	t.Parallel()
	var words atomic.Value
	words.Store("ERR the first words")
	addr := asidetest.Answering(t, func(conn net.Conn) {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			for range strings.Count(string(b[:n]), "*") {
				_, _ = io.WriteString(conn, "-"+words.Load().(string)+"\r\n")
			}
		}
	})
	var log asidetest.Logbook
	asidetest.NewCache(t, aside.Options{Redis: asidetest.To(addr), Logger: log.Logger()})
	asidetest.Eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "the first words") })
	words.Store("ERR the last words")
	const pause = 10 * time.Second
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "the last words") }, pause+asidetest.Bound, 10*time.Millisecond, "it is logged")
	require.Len(t, log.Lines(t), 2, log.String())
}

package aside_test

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
		"aside: HashID without Options.Secret: ids that can be guessed can be found in keys": {
			cause: func(_ *testing.T, c *aside.Cache) { c.HashID("an id") },
		},
		"aside: Options.OnInvalidated panicked": {
			options: func(o *aside.Options) { o.OnInvalidated = func(aside.Invalidation) { panic("oops") } },
			cause: func(t *testing.T, c *aside.Cache) {
				_, err := c.Invalidate(ctx, items.Key("a"))
				require.NoError(t, err)
			},
		},
		"aside: a cached value differs from what its loader returns, and nothing has invalidated it": {
			options: func(o *aside.Options) { o.Check = aside.Check{Share: 1, Within: time.Second, Rate: -1} },
			cause: func(t *testing.T, c *aside.Cache) {
				for _, v := range []string{"old", "new"} {
					_, err := aside.GetOrLoad(ctx, c, items.Key("a"), value(v))
					require.NoError(t, err)
				}
				time.Sleep(time.Minute) // the source is asked again, and still says so
			},
		},
		"aside: closed while loaders still run; they ignore the end of their context": {
			cause: func(t *testing.T, c *aside.Cache) {
				release := make(chan struct{})
				go func() {
					_, _ = aside.GetOrLoad(ctx, c, items.Key("a"), func(context.Context) (string, error) { <-release; return "v", nil })
				}()
				synctest.Wait()
				require.NoError(t, c.Close())
				close(release)
			},
		},
		"aside: closed while calls or OnInvalidated still run; a codec, or OnInvalidated itself, does not return": {
			options: func(o *aside.Options) { o.OnInvalidated = func(aside.Invalidation) { time.Sleep(time.Hour) } },
			cause: func(t *testing.T, c *aside.Cache) {
				go func() { _, _ = c.Invalidate(ctx, items.Key("a")) }()
				synctest.Wait()
				require.NoError(t, c.Close())
				time.Sleep(2 * time.Hour) // it returns at last
			},
		},
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log logbook
				o := aside.Options{Logger: log.logger()}
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
	if inCluster {
		t.Skip("one server is told here what it may not do")
	}
	server := redistest.Start(t)
	var log logbook
	o := anonymously(server.Addr())
	o.Logger = log.logger()
	c := connected(t, o)
	server.MustDo(t, "ACL", "SETUSER", "default", "-scan")
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan aside.Receipt, 1)
	go func() {
		r, _ := c.InvalidatePattern(ctx, items.Match(aside.Wildcard))
		result <- r
	}()
	eventually(t, "it is logged", func() bool {
		return strings.Contains(log.String(), "aside: keys in redis cannot be gone through; it is tried again")
	})
	cancel()
	<-result
	server.MustDo(t, "ACL", "SETUSER", "default", "+scan")
}

// The log names the reason that Redis is away for also where it is another one than that of the first line.
func TestTheLogNamesTheReasonThatLasts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var log logbook
	o := at(server.Addr())
	o.Logger = log.logger()
	c := connected(t, o)
	server.Kill()
	eventually(t, "it is known why there is no connection", func() bool { return c.Health().Reason == connectionRefused })
	const pause = 10 * time.Second
	require.Eventually(t, func() bool { return strings.Contains(log.String(), connectionRefused) }, pause+bound, 10*time.Millisecond, "it is logged")
	require.Len(t, log.lines(t), 3, "connected, broken, refused: %s", log.String())
}

// The reason stays the same where a server says something else that is for the log alone.
func TestTheLogHasTheLastWordsOfTheServer(t *testing.T) {
	t.Parallel()
	var words atomic.Value
	words.Store("ERR the first words")
	addr := answering(t, func(conn net.Conn) {
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
	var log logbook
	newCache(t, aside.Options{Redis: to(addr), Logger: log.logger()})
	eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "the first words") })
	words.Store("ERR the last words")
	const pause = 10 * time.Second
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "the last words") }, pause+bound, 10*time.Millisecond, "it is logged")
	require.Len(t, log.lines(t), 2, log.String())
}

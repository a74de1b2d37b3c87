package asidehttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// floodLength is how long orders are sent at the rate limit, by ASIDE_FLOOD. Without it some are sent as fast as they are answered, more
// than there is room for.
func floodLength(t *testing.T) (d time.Duration, long bool) {
	text := os.Getenv("ASIDE_FLOOD")
	if text == "" {
		return 0, false
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err)
	return d, true
}

const (
	shortFlood = 180 // posts
	victims    = 200 // values that the flood may name
	padded     = 62  // bytes of a name of which 1,000 fill a body
)

// The policies of a flood. Nothing in it ends by its TTL.
var (
	floodUser     = aside.Policy{Category: "user", TTL: 24 * time.Hour}
	floodModels   = aside.Policy{Category: "models", TTL: 24 * time.Hour}
	floodSessions = aside.Policy{Category: "sessions", TTL: 24 * time.Hour}
)

func victim(n int) aside.Key { return floodUser.Key(fmt.Sprint("victim-", n)) }

// floodBody is the order number i, as large as it may be. One in nine is refused for what it holds, and one for the key's scope. One in
// nine may name a victim.
func floodBody(t testing.TB, i int, named string) string {
	names := func(prefix string) (list []string) {
		for j := range 1000 {
			name := fmt.Sprintf("%s%d.%d.", prefix, i, j)
			list = append(list, name+strings.Repeat("x", padded-len(name)))
		}
		return list
	}
	var body string
	switch i % 9 {
	case 0:
		list := names("user:")
		if named != "" {
			list[500] = named
		}
		body = bodyOf(t, "keys", list)
	case 1, 2:
		body = bodyOf(t, "keys", names("user:"))
	case 3:
		var list []string
		for j := range 63 {
			name := fmt.Sprint("user:", i, ".", j, ".")
			list = append(list, name+strings.Repeat("x", 1024-len(name)))
		}
		body = bodyOf(t, "keys", list)
	case 4, 5:
		body = bodyOf(t, "tags", names("tag "))
	case 6:
		name := fmt.Sprint("user:", i, ".")
		body = bodyOf(t, "pattern", name+strings.Repeat("x", 127-len(name))+"*")
	case 7:
		body = fmt.Sprintf(`{"keys":["user:%d.%s"]}`, i, strings.Repeat("x", 64_000))
	default:
		body = `{"category":"all"}`
	}
	require.LessOrEqual(t, len(body), 64<<10)
	return body
}

// heardOf is a front end that takes everything, and keeps when it was last told of what the flood has not named.
type heardOf struct {
	mu     sync.Mutex
	last   map[string]time.Time // guarded by mu, as all below
	others int
}

func (h *heardOf) RoundTrip(r *http.Request) (*http.Response, error) {
	var body struct{ Tag string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return nil, err
	}
	time.Sleep(10 * time.Millisecond)
	h.mu.Lock()
	defer h.mu.Unlock()
	if strings.HasPrefix(body.Tag, "key:user:") || strings.HasPrefix(body.Tag, "tag:") {
		h.others++
	} else {
		h.last[body.Tag] = time.Now()
	}
	return status(200), nil
}

// since reports whether it was told after a time.
func (h *heardOf) since(tag string, at time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last[tag].After(at)
}

// linesOf counts lines of a log, by the second.
type linesOf struct {
	mu       sync.Mutex
	counting bool                      // guarded by mu, as all below
	kinds    map[string]int            // lines at level Warn and Error
	seconds  map[int64]int             // of all those
	same     map[int64]map[string]bool // kinds by second
	twice    []string                  // kinds of which a second has more than one
	audits   map[string]int            // lines at level Info, by key
	summed   map[string]int            // of them, those that sum up
}

func newLinesOf() *linesOf {
	return &linesOf{
		kinds: make(map[string]int), seconds: make(map[int64]int), same: make(map[int64]map[string]bool),
		audits: make(map[string]int), summed: make(map[string]int),
	}
}

func (l *linesOf) count(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counting = on
}

func (l *linesOf) Write(p []byte) (int, error) {
	var line struct {
		Time            time.Time
		Level, Msg, Key string
	}
	if err := json.Unmarshal(p, &line); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch second := line.Time.Unix(); {
	case !l.counting:
	case line.Level == "INFO":
		l.audits[line.Key]++
		if strings.HasSuffix(line.Msg, "(summary)") {
			l.summed[line.Key]++
		}
	default:
		l.kinds[line.Msg]++
		l.seconds[second]++
		if l.same[second] == nil {
			l.same[second] = make(map[string]bool)
		}
		if l.same[second][line.Msg] {
			l.twice = append(l.twice, line.Msg)
		}
		l.same[second][line.Msg] = true
	}
	return len(p), nil
}

// One key sends as much as it may, and more: the heap does not grow, nothing is invalidated that it has not named, what it was told is
// invalidated is, others are answered, the front end hears of what those have invalidated, and the log has a line a second at most.
func TestAFloodOfOrders(t *testing.T) {
	for _, mode := range []string{"memory", "healthy", "hung", "gone"} {
		t.Run(mode, func(t *testing.T) {
			length, long := floodLength(t)
			var server *redistest.Server
			if mode != "memory" {
				server = redistest.Start(t, "--appendonly", "yes", "--appendfsync", "everysec")
			}
			log, front := newLinesOf(), &heardOf{last: make(map[string]time.Time)}
			rate := -1.0
			if long {
				rate = 0 // the default
			}
			f := floodWith(t, server, rate, front, log, floodUser, floodModels, floodSessions)
			ctx := context.Background()
			caches := []*aside.Cache{f.cache}
			if f.other != nil {
				caches = append(caches, f.other)
			}
			hit := func(c *aside.Cache, key aside.Key) func() bool {
				return func() bool {
					v, err := aside.Get[string](ctx, c, key)
					return err == nil && v == "v"
				}
			}
			keep := []aside.Key{floodModels.Key("kept"), floodSessions.Key("kept"), floodUser.Key("kept")}
			for n := range victims {
				keep = append(keep, victim(n))
			}
			for _, key := range keep {
				eventually(t, "it is stored and read", func() bool { // Set returns no error where Redis is too slow to store the value
					if aside.Set(ctx, f.cache, key, "v") != nil {
						return false
					}
					for _, c := range caches {
						if !hit(c, key)() {
							return false
						}
					}
					return true
				})
			}
			switch mode {
			case "hung":
				server.Pause()
			case "gone":
				time.Sleep(1100 * time.Millisecond) // all that was written is in its file
				server.Kill()
			}
			if mode == "hung" || mode == "gone" {
				for _, c := range caches {
					eventually(t, "degraded", func() bool { return c.Health().State == aside.StateDegraded })
				}
			}

			log.count(true)
			began := time.Now()
			statuses := make(map[int]int) // of the flood
			named := make(map[int]int)    // the status of the order that has named a victim
			var others []time.Time        // when the others' orders were sent
			var heaps [3]int64            // the largest live heap of each third
			var lastOther, lastHeap time.Time
			each := time.Second // between orders of others
			if !long {
				each = 0
			}
			progress := func(i int) float64 {
				if long {
					return float64(time.Since(began)) / float64(length)
				}
				return float64(i) / shortFlood
			}
			nextVictim, posts := 0, 0
			for i := 0; progress(i) < 1; {
				var name string
				if i%9 == 0 && nextVictim < victims && float64(nextVictim)/victims <= progress(i) {
					name = fmt.Sprint("user:victim-", nextVictim)
				}
				code := f.post(t, keyChange, floodBody(t, i, name))
				statuses[code]++
				posts++
				if code == http.StatusTooManyRequests {
					time.Sleep(50 * time.Millisecond)
				} else {
					if name != "" {
						named[nextVictim] = code
						nextVictim++
					}
					i++
				}
				if time.Since(lastOther) >= each && (long || i%20 == 0) {
					lastOther = time.Now()
					n := len(others)
					others = append(others, time.Now())
					require.Equal(t, 200, f.post(t, keyOld, bodyOf(t, "keys", []string{fmt.Sprint("sessions:", n)})), "another key is answered")
					require.Equal(t, 200, ask(f.handler, "GET", "/?metrics=true", "", "Bearer "+keyAll).Code, "another key is answered")
				}
				if time.Since(lastHeap) >= each && (long || i%5 == 0) {
					lastHeap = time.Now()
					third := min(int(3*progress(i)), 2)
					heaps[third] = max(heaps[third], heap())
				}
			}
			took := time.Since(began)
			time.Sleep(1100 * time.Millisecond) // what is summed up is written
			log.count(false)
			seconds := int(took.Seconds()) + 2

			log.mu.Lock()
			most := 0
			for _, n := range log.seconds {
				most = max(most, n)
			}
			all := 0
			for _, n := range log.kinds {
				all += n
			}
			t.Logf("%s: %d posts in %v, by status %v; live heap at most %d, %d, %d KiB in each third; %d orders of others; lines at Warn and above: %d in all, %d in a second at most, %v; audit lines: %v, of them in sum %v",
				mode, posts, took.Round(time.Millisecond), statuses, heaps[0]>>10, heaps[1]>>10, heaps[2]>>10, len(others), all, most, log.kinds, log.audits, log.summed)
			require.Empty(t, log.twice, "a second has two lines of a kind")
			require.LessOrEqual(t, all, seconds+2)
			require.LessOrEqual(t, log.audits["flood"], seconds+10)
			log.mu.Unlock()
			require.Less(t, heaps[2]-heaps[1], int64(12<<20), "the heap grows")
			orders := posts - statuses[http.StatusTooManyRequests]
			require.Equal(t, orders, statuses[200]+statuses[403]+statuses[422]+statuses[503], "%v", statuses)
			require.InDelta(t, orders/9, statuses[422], 1)
			require.InDelta(t, orders/9, statuses[403], 1)
			require.NotZero(t, statuses[200])
			if long {
				require.NotZero(t, statuses[http.StatusTooManyRequests])
				require.Greater(t, float64(orders), 9*took.Seconds(), "it was sent at the rate limit")
			}

			switch mode {
			case "hung":
				server.Resume()
			case "gone":
				server.Restart()
			}
			if server != nil {
				for _, c := range caches {
					eventually(t, "connected", func() bool { return c.Health().State == aside.StateConnected })
				}
				receipt, err := f.cache.InvalidateTags(ctx, "the last one")
				require.NoError(t, err)
				require.NoError(t, receipt.Wait(t.Context()))
			}
			refused, gone := 0, 0
			for _, c := range caches {
				for i, key := range keep {
					switch code := named[i-3]; code {
					case 200:
						gone++
						eventually(t, "what was named is gone", func() bool {
							_, err := aside.Get[string](ctx, c, key)
							return errors.Is(err, aside.ErrMiss)
						})
					default:
						if code != 0 {
							refused++
						}
						eventually(t, fmt.Sprint("what was not named, or refused, is there: ", key), hit(c, key))
					}
				}
			}
			f.mu.Lock()
			require.Empty(t, f.pieces, "nobody has invalidated a category")
			f.mu.Unlock()
			for n, at := range others {
				eventually(t, "the front end is told of what others have invalidated", func() bool {
					return front.since(fmt.Sprint("key:sessions:", n), at) || front.since("category:sessions", at)
				})
			}
			front.mu.Lock()
			require.Zero(t, front.last["all"])
			t.Logf("%d named values gone, %d refused ones there; %d requests about what the flood has named", gone, refused, front.others)
			front.mu.Unlock()
			require.Zero(t, f.sender.Stats().Lost)
		})
	}
}

package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

var tailVerb = verb{
	name: "tail", arguments: "PREFIX", does: "each change of the keys that begin with PREFIX, as Redis pushes it",
	details: `
It shows which keys are rewritten and how often: a line for each change, with the header that the
key has then. 'products:' follows a category, '%t:' the invalidations of tags. A key that changes
again at once may have one line for both changes. The server has work with each push to the
command, so a prefix is needed, and it ends by itself.`,
	where: onRedis,
	prepare: func(flags *flag.FlagSet) action {
		length := flags.Duration("for", time.Minute, "follow for a `DURATION`")
		most := flags.Int("n", 0, "end after `N` changes; 0: no limit")
		return func(ctx context.Context, c *call) error { return tail(ctx, c, *length, *most) }
	},
}

// A follower is one run of tail.
type follower struct {
	*call
	tracker rueidis.Client // which gets the pushes
	client  rueidis.Client // which reads the headers
	pushed  chan string    // names in Redis; "" for everything
	dropped atomic.Uint64  // pushes that came faster than they could be shown
	changes map[string]int // by key
	total   int
}

// mostPushed is how many pushes wait to be shown.
const mostPushed = 1 << 16

func tail(ctx context.Context, c *call, length time.Duration, most int) error {
	switch {
	case len(c.args) != 1 || c.args[0] == "":
		return usage("give what the keys begin with, such as products:")
	case strings.ContainsAny(c.args[0], "*?["):
		return usage("%s is a pattern: give what the keys begin with, such as products:", oneLine(c.args[0]))
	case length <= 0 || most < 0:
		return usage("-for is not positive, or -n is negative")
	}
	o, err := c.options()
	if err != nil {
		return err
	}
	f := &follower{call: c, pushed: make(chan string, mostPushed), changes: map[string]int{}}
	opt := o.Redis
	opt.DisableRetry, opt.ClientSetInfo, opt.Dialer.Timeout = true, rueidis.DisableClientSetInfo, c.timeout
	tracking := opt
	tracking.ClientTrackingOptions = []string{"BCAST", "PREFIX", c.prefix() + c.args[0]}
	tracking.OnInvalidations = f.note
	if f.tracker, err = rueidis.NewClient(tracking); err != nil {
		return fmt.Errorf("following the keys failed: %s", reason(err))
	}
	defer f.tracker.Close()
	if err := reach(ctx, f.tracker); err != nil {
		return fmt.Errorf("following the keys failed: %s", reason(err))
	}
	opt.DisableCache = true
	if f.client, err = rueidis.NewClient(opt); err != nil {
		return fmt.Errorf("following the keys failed: %s", reason(err))
	}
	defer f.client.Close()
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	if !c.json {
		fmt.Fprintf(c.out, "following %s for %s\n", oneLine(c.prefix()+c.args[0]), show(length))
	}
	return f.follow(ctx, most)
}

// reach sees to a connection to each node.
func reach(ctx context.Context, client rueidis.Client) error {
	for _, node := range client.Nodes() {
		if err := doAt(ctx, node, "PING").Error(); err != nil {
			return err
		}
	}
	return nil
}

// resume connects again after a loss. A client does that with its next command, and a tracker would send none.
func (f *follower) resume(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for reach(ctx, f.tracker) != nil || reach(ctx, f.client) != nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// note is called on the connection's own goroutine, and must not wait.
func (f *follower) note(messages []rueidis.RedisMessage) {
	names := []string{""}
	if messages != nil {
		names = names[:0]
		for _, m := range messages {
			if name, err := m.ToString(); err == nil {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		select {
		case f.pushed <- name:
		default:
			f.dropped.Add(1)
		}
	}
}

func (f *follower) follow(ctx context.Context, most int) error {
	began := time.Now()
	for most == 0 || f.total < most {
		select {
		case <-ctx.Done():
			return f.sum(time.Since(began))
		case name := <-f.pushed:
			if name == "" {
				f.resume(ctx)
			}
			if err := f.show(ctx, name); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
	return f.sum(time.Since(began))
}

// show prints a change, with what the key holds now.
func (f *follower) show(ctx context.Context, name string) error {
	key := strings.TrimPrefix(name, f.prefix())
	if f.total++; name != "" {
		f.changes[key]++
	}
	what, err := f.now(ctx, name, key)
	if err != nil {
		return err
	}
	at := time.Now()
	if f.json {
		return encode(f.call, struct {
			At   time.Time `json:"at"`
			Key  string    `json:"key"`
			What string    `json:"what"`
		}{at.UTC(), name, what}, "")
	}
	_, err = fmt.Fprintf(f.out, "%s  %s  %s\n", at.Format("15:04:05.000"), oneLine(name), oneLine(what))
	return err
}

// now says what a key holds.
func (f *follower) now(ctx context.Context, name, key string) (string, error) {
	if name == "" {
		return "everything was flushed, or the connection was lost: changes may be missing", nil
	}
	value, err := doAt(ctx, f.client, "GETRANGE", name, "0", fmt.Sprint(wire.MaxOverhead-1)).AsBytes()
	switch {
	case redisstore.IsWrongType(err):
		return "no string: another program's", nil
	case err != nil:
		return "", fmt.Errorf("reading %s failed: %s", oneLine(name), reason(err))
	case len(value) == 0:
		return "removed", nil
	}
	if generation, err := redisstore.ParseGeneration(value); err == nil && keyspace.IsTag(key) {
		return fmt.Sprintf("%s: its generation is %d", tagName(key), generation), nil
	}
	h, stored, need, err := wire.Peek(name, value)
	if err != nil || need > len(value) {
		return "no value that this build can read", nil
	}
	what := fmt.Sprintf("stored %d bytes, fresh for %s, fill %s", stored, show(time.Duration(h.FreshUntil-h.LoadStart)*time.Microsecond), h.Nonce)
	if h.LoadDuration > 0 {
		what += ", loaded in " + show(h.LoadDuration)
	}
	if h.Negative {
		what += ", not found"
	}
	return what, nil
}

// sum prints how often which keys have changed.
func (f *follower) sum(took time.Duration) error {
	if f.json {
		return nil
	}
	keys := make([]string, 0, len(f.changes))
	for key := range f.changes {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if d := f.changes[b] - f.changes[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	fmt.Fprintf(f.out, "%d changes of %d keys in %s", f.total, len(keys), show(took))
	if len(keys) > 0 {
		fmt.Fprintf(f.out, ", most of them of %s: %d", oneLine(keys[0]), f.changes[keys[0]])
	}
	if n := f.dropped.Load(); n > 0 {
		fmt.Fprintf(f.out, "; %d more came too fast to be shown", n)
	}
	_, err := fmt.Fprintln(f.out)
	return err
}

package redisstore

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// probeLife is how long a server may take to push a change that this process makes as a probe.
const probeLife = time.Second

// probeKept is how long the key of a probe lives. A process that is paused for longer takes the key's expiry for a loss of data,
// which costs it the values in memory.
const probeKept = time.Hour

// writeProbe writes the key of a probe. Once a script has written, the server lets it go on writing without memory, so the removal
// comes first.
//
//	KEYS  the key
//	ARGV  the value, its life in ms
var writeProbe = newScript(stats.Other, `
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`)

// A probe counts pushes about one key, by which one connection of a session is checked. Only messages on the connection that has read
// the key count. Another session of this process may read and write the same key.
type probe struct {
	t       *tracking
	session *session
	name    string
	wake    chan struct{} // with room for one

	// All guarded by t.mu.
	conn         *trackedConn // that has read the key last
	value        string       // the value that it read
	pushesAtRead uint64       // pushes, at the position of that reply
	pushes       uint64       // how many pushes were about the key
	events       uint64       // how many pushes were about the key, or about all keys
	eventsAtRead uint64       // events, at the position of that reply
}

// newProbe counts pushes about a key from now on, until stop.
func (t *tracking) newProbe(of *session, name string) *probe {
	p := &probe{t: t, session: of, name: name, wake: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.probes == nil {
		t.probes = make(map[string][]*probe)
	}
	t.probes[name] = append(t.probes[name], p)
	return p
}

func (p *probe) stop() {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	rest := slices.DeleteFunc(p.t.probes[p.name], func(other *probe) bool { return other == p })
	if p.t.probes[p.name] = rest; len(rest) == 0 {
		delete(p.t.probes, p.name)
	}
}

// tracked reports whether the server pushes the next change of the key, and how often it had pushed a change when the key was read. It
// pushes one change after each read. FLUSHALL makes it forget which keys were read.
func (p *probe) tracked() (atRead uint64, ok bool) {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	return p.eventsAtRead, p.conn != nil && p.events == p.eventsAtRead
}

// count is how often the server has pushed a change.
func (p *probe) count() uint64 {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	return p.events
}

// last is the value that was read last, and how many pushes there had been by then.
func (p *probe) last() (value string, named uint64) {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	return p.value, p.pushesAtRead
}

// await waits for a push, at most for probeLife. before is the count before the change.
func (p *probe) await(ctx context.Context, before uint64) error {
	t := time.NewTimer(probeLife)
	defer t.Stop()
	for p.count() <= before {
		select {
		case <-p.wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			if p.count() > before {
				return nil
			}
			return errSilent
		}
	}
	return nil
}

// probeRead notes the reply to a read of a key by w.
func (t *tracking) probeRead(w *trackedConn, name string, reply rueidis.RedisMessage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.probes[name] {
		if p.session == w.session {
			p.conn, p.pushesAtRead, p.eventsAtRead = w, p.pushes, p.events
			p.value, _ = reply.ToString()
		}
	}
}

// notifyProbe notes that w has received a push about a key, and reports whether it is the key of a probe.
func (t *tracking) notifyProbe(w *trackedConn, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.probes[name] {
		if p.conn == w {
			p.pushes++
			p.events++
			signal(p.wake)
		}
	}
	return t.probes[name] != nil
}

// notifyFlush notes that w has received a push about all keys. The flush may be of another database, so it explains no other
// value.
func (t *tracking) notifyFlush(w *trackedConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, list := range t.probes {
		for _, p := range list {
			if p.conn == w {
				p.events++
				signal(p.wake)
			}
		}
	}
}

func (s *Store) writeProbe(ctx context.Context, c rueidis.Client, name, value string) (err error) {
	life := fmt.Sprint(probeKept.Milliseconds())
	err = c.Do(ctx, c.B().Evalsha().Sha1(writeProbe.sha1).Numkeys(1).Key(name).Arg(value, life).Build()).Error()
	if code(err) == "NOSCRIPT" {
		err = c.Do(ctx, c.B().Eval().Script(writeProbe.text).Numkeys(1).Key(name).Arg(value, life).Build()).Error()
	}
	return err
}

// probeNames are names of this process that the server has, a pair for each connection: rueidis chooses a connection by the slot of
// the key.
func (l *link) probeNames() (pairs [][2]string) {
	wires := uint16(1) << max(0, l.options.PipelineMultiplex)
	found := make(map[uint16][]string)
	owned, first := l.owned.Load(), l.ownName(watchName)
	for i := 0; len(pairs) < int(wires) && i < mostNames; i++ {
		name := first
		if i > 0 {
			name = fmt.Sprint(first, i)
		}
		slot := slotOf(name)
		if owned != nil && !owned.empty() && !owned.has(slot) || len(found[slot%wires]) == 2 {
			continue
		}
		found[slot%wires] = append(found[slot%wires], name)
		if names := found[slot%wires]; len(names) == 2 {
			pairs = append(pairs, [2]string(names))
		}
	}
	return pairs
}

// readTracked reads the keys of probes, so that the server pushes their changes. The value of a key that is missing, or at another
// node, is "".
func readTracked(ctx context.Context, c rueidis.Client, names []string) (values []string, err error) {
	reads := make([]rueidis.CacheableTTL, len(names))
	for i, name := range names {
		reads[i] = rueidis.CT(c.B().Get().Key(name).Cache().ToStaticTTL(), time.Hour)
	}
	for _, r := range c.DoMultiCache(ctx, reads...) {
		value, err := r.ToString()
		if err != nil && !rueidis.IsRedisNil(err) && !isElsewhere(err) {
			return nil, err
		}
		values = append(values, value)
	}
	return values, nil
}

package redisstore

import (
	"context"
	crypto "crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/rueidis"
)

// watchName is what the names begin with of the keys that connections are tried with.
const watchName = "%watch:"

// probeEvery is how often each connection is tried that is told of changes: whether the server still tells it, and whether it
// still has the data that it had.
const probeEvery = time.Second

// probeLife is how long a server may take to tell of a change that this process makes to see whether it does.
const probeLife = time.Second

// probeKept is how long the key lives that a connection is tried with. A process that is paused for longer takes the key's end for
// the loss of the data, which costs it what it has in memory.
const probeKept = time.Hour

var (
	errSilent    = fmt.Errorf("%w: the server says nothing of a change", rueidis.ErrNoCache)
	errOtherData = errors.New("the server has other data than before, as after SWAPDB")
)

// touch writes a value to a key that connections are tried with. Once a script has written, the
// server lets it go on writing though it has no memory left, so the removal comes first.
//
//	KEYS  the key
//	ARGV  the value, its life in ms
var touch = newScript(`
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`)

// A probe is a key that one connection is tried with. Only what comes by the connection that has read the key says anything of it.
type probe struct {
	t    *tracking
	name string
	wake chan struct{} // with room for one

	// All guarded by t.mu.
	by    *wire  // that has read it last
	value string // what it read
	at    uint64 // named, in the place of that reply
	named uint64 // how often the server has named it as changed
	told  uint64 // the same, and how often it has said that everything was flushed
}

// listen notes what is told of a key from now on, until stop.
func (t *tracking) listen(name string) *probe {
	p := &probe{t: t, name: name, wake: make(chan struct{}, 1)}
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

// count is how often the server has told of a change.
func (p *probe) count() uint64 {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	return p.told
}

// last is what was read last, and how often the key had been named by then.
func (p *probe) last() (value string, named uint64) {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	return p.value, p.at
}

// await waits until more changes were told than before, at most for probeLife.
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
func (t *tracking) probeRead(w *wire, name string, reply rueidis.RedisMessage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.probes[name] {
		p.by, p.at = w, p.named
		p.value, _ = reply.ToString()
	}
}

// probed notes that w is told of a change of a key, and reports whether it is one that connections are tried with.
func (t *tracking) probed(w *wire, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.probes[name] {
		if p.by == w {
			p.named++
			p.told++
			signal(p.wake)
		}
	}
	return t.probes[name] != nil
}

// flushed notes that w is told of a change of all keys. That may be about another database, so it explains no other value.
func (t *tracking) flushed(w *wire) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, list := range t.probes {
		for _, p := range list {
			if p.by == w {
				p.told++
				signal(p.wake)
			}
		}
	}
}

func (s *Store) touch(ctx context.Context, c rueidis.Client, name, value string) (err error) {
	life := fmt.Sprint(probeKept.Milliseconds())
	err = c.Do(ctx, c.B().Evalsha().Sha1(touch.sha1).Numkeys(1).Key(name).Arg(value, life).Build()).Error()
	if code(err) == "NOSCRIPT" {
		err = c.Do(ctx, c.B().Eval().Script(touch.text).Numkeys(1).Key(name).Arg(value, life).Build()).Error()
	}
	return err
}

// probeNames are names of this process's that the server has, one for each connection: rueidis chooses one by the slot of the key.
func (l *link) probeNames() (names []string) {
	wires := uint16(1) << max(0, l.options.PipelineMultiplex)
	seen := make(map[uint16]bool)
	owned, first := l.owned.Load(), l.ownName(watchName)
	for i := 0; len(seen) < int(wires) && i < mostNames; i++ {
		name := first
		if i > 0 {
			name = fmt.Sprint(first, i)
		}
		slot := slotOf(name)
		if owned != nil && !owned.empty() && !owned.has(slot) || seen[slot%wires] {
			continue
		}
		seen[slot%wires] = true
		names = append(names, name)
	}
	return names
}

// readTracked reads keys that a server is tried with, so that it tells of their changes. What is missing, or at another node, is "".
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

// isElsewhere reports whether the node of a cluster answers, and does not have the key, or not any more.
func isElsewhere(err error) bool {
	c := code(err)
	return c == "MOVED" || c == "ASK"
}

// isReplica reports whether a server says that it is no primary, or not any more. It tells of no change that it has not been told of,
// and the connection to it looks sound.
func isReplica(err error) bool {
	c := code(err)
	return c == "READONLY" || c == "MASTERDOWN"
}

// A vigil is what is known of one key that a connection is tried with.
type vigil struct {
	*probe
	written string // the value that was written and read last; "" where that is not known
	named   uint64 // how often the key had been named when it was read
}

// seesChanges finds out whether the server tells this process of a change. There are proxies that accept what switches it
// on, and then say nothing. What it has written is what the first round of watch expects.
func (s *Store) seesChanges(ctx context.Context, l *link, now *session) error {
	now.vigils = make(map[string]*vigil)
	return s.try(ctx, l, now)
}

// watch tries the connections of a session again and again until ctx ends. A server, or what is between it and this process, may
// cease to tell of changes while it goes on answering; or its data may be exchanged without a word to anybody, by SWAPDB.
func (s *Store) watch(ctx context.Context, l *link, now *session) {
	defer now.endVigils()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	activity := activity{asked: s.asked, reads: s.tracking.reads, l: l}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if activity.quiet(s.restAfter) {
			if !now.rest(ctx) {
				return
			}
			if now.vouches() {
				activity.since = time.Time{}
			} // else the last mark was written again, as it is each minute: one look is enough
		}
		if now.broken.Load() {
			return
		}
		last, gone := l.lastMark.Load(), l.markGone.Load() && now.compares()
		err := s.knowsLastMark(ctx, l, now.client)
		if err == nil {
			err = s.try(ctx, l, now)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && gone: // it was evicted, and may be written again
			l.markGone.Store(false)
			l.lastMark.CompareAndSwap(last, 0)
		case errors.Is(err, errOtherData):
			l.markGone.Store(false)
			for _, w := range l.wires() {
				w.withdraw()
			}
			// It may not know of the last invalidations.
			if err := l.recall(ctx, now.client); err != nil {
				now.lost(l, err)
				return
			}
		case errors.Is(err, errSilent):
			now.lost(l, err)
			return
		case isReplica(err):
			l.doubtAgain()
			l.trip(now, err)
		}
		// Whoever asks for something finds out about other errors too, and sees to it.
	}
}

// try is one round. Every key is read: unless the server has named it since, its value must be the one that was written in the round
// before. Then it is written, which the server must tell of, and read for the next round. The reply of that read comes behind the
// message about the write, so a process that was paused does not take its own pause for silence.
func (s *Store) try(ctx context.Context, l *link, now *session) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	names := l.probeNames()
	for name, t := range now.vigils {
		if !slices.Contains(names, name) { // its slot has moved
			t.stop()
			delete(now.vigils, name)
		}
	}
	for _, name := range names {
		v := now.vigils[name]
		if v == nil {
			v = &vigil{probe: s.listen(name)}
			now.vigils[name] = v
			if _, err := readTracked(ctx, now.client, []string{name}); err != nil {
				return err
			}
		}
		if err := s.tryOne(ctx, now.client, v); err != nil {
			return err
		}
	}
	return nil
}

// knowsLastMark finds out whether the server has an earlier mark than this process has written there. What else is tried may have been
// named meanwhile, as where the server's table of tracked keys is full, and then says nothing. A mark that is missing may have been
// evicted. It is not for a session that is being made: that may well have found another server, and recall is what finds out.
func (s *Store) knowsLastMark(ctx context.Context, l *link, c rueidis.Client) error {
	last := l.lastMark.Load() // before the mark is read: marks grow
	if last == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if found, err := c.Do(ctx, c.B().Get().Key(l.ownName(markName)).Build()).AsUint64(); err == nil && found < last {
		return errOtherData
	}
	return nil
}

func (s *Store) tryOne(ctx context.Context, c rueidis.Client, v *vigil) error {
	written := v.written
	v.written = ""
	if written != "" {
		if _, err := readTracked(ctx, c, []string{v.name}); err != nil {
			return err
		}
		if value, named := v.last(); value != written && named == v.named {
			return errOtherData
		}
	}
	value, before := crypto.Text(), v.count()
	if err := s.touch(ctx, c, v.name, value); err != nil {
		if _, refused := rueidis.IsRedisErr(err); refused && !isReplica(err) {
			return nil // a server that stores nothing now may still tell
		}
		return err
	}
	_, err := readTracked(ctx, c, []string{v.name})
	if err == nil {
		err = v.await(ctx, before)
	}
	if read, named := v.last(); err == nil && read == value {
		v.written, v.named = value, named
	}
	return err
}

// compares reports whether the next round compares what every key has with what was written.
func (s *session) compares() bool {
	for _, v := range s.vigils {
		if v.written == "" {
			return false
		}
	}
	return len(s.vigils) > 0
}

func (s *session) endVigils() {
	for _, t := range s.vigils {
		t.stop()
	}
}

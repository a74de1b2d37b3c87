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

// touch writes a value to a key that servers are tried with, and answers with the one before. Once a script has written, the
// server lets it go on writing though it has no memory left, so the removal comes first.
//
//	KEYS  the key
//	ARGV  the value, its life in ms
var touch = newScript(`
local before = redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return before or ''
`)

// A probe counts the changes of one key that servers are tried with.
type probe struct {
	t     *tracking
	name  string
	heard uint64        // how often the server has told of one; guarded by t.mu
	wake  chan struct{} // with room for one
}

// listen counts the changes of a key from now on, until stop.
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

func (p *probe) count() uint64 {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	return p.heard
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

// probed notes a change of a key, and reports whether it is one that servers are tried with.
func (t *tracking) probed(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.probes[name] {
		p.hear()
	}
	return t.probes[name] != nil
}

// flushed notes that all keys were changed.
func (t *tracking) flushed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, list := range t.probes {
		for _, p := range list {
			p.hear()
		}
	}
}

func (p *probe) hear() {
	p.heard++
	signal(p.wake)
}

func (s *Store) touch(ctx context.Context, c rueidis.Client, name, value string) (before string, err error) {
	life := fmt.Sprint(probeKept.Milliseconds())
	before, err = c.Do(ctx, c.B().Evalsha().Sha1(touch.sha1).Numkeys(1).Key(name).Arg(value, life).Build()).ToString()
	if code(err) == "NOSCRIPT" {
		before, err = c.Do(ctx, c.B().Eval().Script(touch.text).Numkeys(1).Key(name).Arg(value, life).Build()).ToString()
	}
	return before, err
}

// probeNames are names of this process's that the server has, one for each connection: rueidis chooses one by the slot of the key.
func (l *link) probeNames() (names []string) {
	wires := uint16(1) << max(0, l.options.PipelineMultiplex)
	seen := make(map[uint16]bool)
	owned, first := l.owned.Load(), l.ownName(probeName)
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

// A trial is what is known of one key that a connection is tried with.
type trial struct {
	*probe
	value string // that was written and read last; "" where that is not known
	heard uint64 // the changes that were told before it was read
}

// seesChanges finds out whether the server tells this process of a change. There are proxies that accept what switches it
// on, and then say nothing. What it has written is what the first round of watch expects.
func (s *Store) seesChanges(ctx context.Context, l *link, now *session) error {
	now.trials = make(map[string]*trial)
	return s.try(ctx, l, now)
}

// watch tries the connections of a session again and again until ctx ends. A server, or what is between it and this process, may
// cease to tell of changes while it goes on answering; or its data may be exchanged without a word to anybody, by SWAPDB.
func (s *Store) watch(ctx context.Context, l *link, now *session) {
	defer now.endTrials()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if l.session.Load() != now { // the link is down, and finds out by itself when the server answers again
			continue
		}
		err := s.try(ctx, l, now)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errOtherData):
			for _, w := range l.wires() {
				w.withdraw()
			}
			now.lost(l, err)
			return
		case errors.Is(err, errSilent):
			now.lost(l, err)
			return
		case isReplica(err):
			l.doubt()
			l.trip(now, err)
		}
		// Whoever asks for something finds out about other errors too, and sees to it.
	}
}

// try is one round. Every key is written. That the server must tell of, since the key was read before; and the value that was there
// must be the one of the round before, unless a change of it was told since. Then the key is read for the next round. The reply of
// that read comes behind the message about the write, so a process that was paused does not take its own pause for silence.
func (s *Store) try(ctx context.Context, l *link, now *session) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	names := l.probeNames()
	for name, t := range now.trials {
		if !slices.Contains(names, name) { // its slot has moved
			t.stop()
			delete(now.trials, name)
		}
	}
	for _, name := range names {
		t := now.trials[name]
		if t == nil {
			if _, err := readTracked(ctx, now.client, []string{name}); err != nil {
				return err
			}
			t = &trial{probe: s.listen(name)}
			now.trials[name] = t
		}
		if err := s.tryOne(ctx, now.client, t); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) tryOne(ctx context.Context, c rueidis.Client, t *trial) error {
	value, before, last, heard := crypto.Text(), t.count(), t.value, t.heard
	t.value = ""
	was, err := s.touch(ctx, c, t.name, value)
	if err != nil {
		if _, refused := rueidis.IsRedisErr(err); refused && !isReplica(err) {
			return nil // a server that stores nothing now may still tell
		}
		return err
	}
	if last != "" && was != last && before == heard {
		return errOtherData
	}
	read, err := readTracked(ctx, c, []string{t.name})
	if err == nil {
		err = t.await(ctx, before)
	}
	if err == nil && read[0] == value {
		t.value, t.heard = value, t.count()
	}
	return err
}

func (s *session) endTrials() {
	for _, t := range s.trials {
		t.stop()
	}
}

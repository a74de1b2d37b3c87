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

var (
	errSilent    = fmt.Errorf("%w: the server says nothing of a change", rueidis.ErrNoCache)
	errOtherData = errors.New("the server has other data than before, as after SWAPDB")
)

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

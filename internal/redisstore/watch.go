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

// probeEvery is how often each tracked connection is probed: whether the server still pushes changes, and whether it still has the
// same data.
const probeEvery = time.Second

var (
	errSilent    = fmt.Errorf("%w: the server says nothing of a change", rueidis.ErrNoCache)
	errOtherData = errors.New("the server has other data than before, as after SWAPDB")
)

// A probedKey is what is known of one key by which a connection is probed.
type probedKey struct {
	*probe
	written string // the value that was last written and then read; "" where that is not known
	pushes  uint64 // how many pushes there had been when the key was read
}

// probePush finds out whether the server pushes changes to this process. There are proxies that accept the command that enables
// pushes, and then push nothing. The first round of watch expects the values that are written here.
func (s *Store) probePush(ctx context.Context, l *link, now *session) error {
	now.probedKeys = make(map[string]*probedKey)
	return s.probeRound(ctx, l, now)
}

// watch probes the connections of a session again and again until ctx ends. A server, or a proxy before it, may cease to push
// changes while it goes on answering. Or its data may be exchanged by SWAPDB, which pushes nothing.
func (s *Store) watch(ctx context.Context, l *link, now *session) {
	defer now.stopProbes()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	activity := activity{calls: s.idling.calls, reads: s.tracking.reads, l: l}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if activity.idle(s.idling.after) {
			if !now.suspendProbes(ctx) {
				return
			}
			if now.inUse() {
				activity.since = time.Time{}
			} // else the last watermark was written again, as it is each minute: one round is enough
		}
		if now.broken.Load() {
			return
		}
		last, compares := l.watermark.last.Load(), now.comparesAll()
		gone := compares && l.watermark.gone.Load()
		err := s.checkWatermark(ctx, l, now.client)
		if err == nil {
			err = s.probeRound(ctx, l, now)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && gone: // the watermark was evicted, and may be written again
			l.watermark.gone.Store(false)
			l.watermark.last.CompareAndSwap(last, 0)
			now.sure = 0
		case err == nil && compares:
			now.sure = last
		case errors.Is(err, errOtherData):
			l.watermark.gone.Store(false)
			for _, w := range l.conns() {
				w.revoke()
			}
			// The data may lack the last invalidations, also those of a watermark that was written since the last round: it may have
			// been written over the one of this data.
			if err := s.readWatermarkUpTo(ctx, l, now.client, now.sure); err != nil {
				now.lost(l, err)
				return
			}
		case errors.Is(err, errSilent):
			now.lost(l, err)
			return
		case isReplica(err):
			l.lapseInUse()
			l.trip(now, err)
		}
		// Callers meet other errors too, and handle them.
	}
}

// probeRound is one round. Every key is read: unless a push has named it since, its value must be the one that was written in the
// round before. Then the key is written, which the server must push, and read for the next round. The reply of that read comes
// behind the push about the write. So a process that was paused does not take its own pause for silence of the server.
func (s *Store) probeRound(ctx context.Context, l *link, now *session) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	names := l.probeNames()
	for name, t := range now.probedKeys {
		if !slices.Contains(names, name) { // its slot has moved
			t.stop()
			delete(now.probedKeys, name)
		}
	}
	for _, name := range names {
		v := now.probedKeys[name]
		if v == nil {
			v = &probedKey{probe: s.newProbe(name)}
			now.probedKeys[name] = v
			if _, err := readTracked(ctx, now.client, []string{name}); err != nil {
				return err
			}
		}
		if err := s.probeKey(ctx, now.client, v); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) probeKey(ctx context.Context, c rueidis.Client, v *probedKey) error {
	written := v.written
	v.written = ""
	if written != "" {
		if _, err := readTracked(ctx, c, []string{v.name}); err != nil {
			return err
		}
		if value, pushes := v.last(); value != written && pushes == v.pushes {
			return errOtherData
		}
	}
	value := crypto.Text()
	before, named := v.count()
	if err := s.writeProbe(ctx, c, v.name, value); err != nil {
		if _, refused := rueidis.IsRedisErr(err); refused && !isReplica(err) {
			return nil // a server that stores nothing now may still push changes
		}
		return err
	}
	if _, err := readTracked(ctx, c, []string{v.name}); err != nil {
		return err
	}
	if err := v.await(ctx, before); err != nil {
		return err
	}
	switch read, pushes := v.last(); {
	case read == value:
		v.written, v.pushes = value, pushes
	case pushes == named+1 && v.alone():
		// That is the push about the write, and another one has not come. So the data was exchanged between the write and the read.
		// The next round would have nothing to compare.
		return errOtherData
	}
	return nil
}

// comparesAll reports whether the next round compares the value of every key with what was written.
func (s *session) comparesAll() bool {
	for _, v := range s.probedKeys {
		if v.written == "" {
			return false
		}
	}
	return len(s.probedKeys) > 0
}

func (s *session) stopProbes() {
	for _, t := range s.probedKeys {
		t.stop()
	}
}

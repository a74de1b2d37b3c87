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

// A probedPair is the two keys by which a connection is probed. They are written in turn, one in each round. So the one that a round
// does not write shows whether the data is still the same, wherever in the round it was exchanged.
type probedPair struct {
	keys    [2]*probe
	next    int    // the index of the one that the next round writes
	written string // the value of the other one, as it was written and then read; "" where that is not known
	pushes  uint64 // how many pushes about that one there had been when it was read
}

// probePush finds out whether the server pushes changes to this process. There are proxies that accept the command that enables
// pushes, and then push nothing. The first round of watch expects the values that are written here.
func (s *Store) probePush(ctx context.Context, l *link, now *session) error {
	now.probedPairs = make(map[[2]string]*probedPair)
	return s.probeRound(ctx, l, now)
}

// watch probes the connections of a session again and again until ctx ends. A server, or a proxy before it, may cease to push
// changes while it goes on answering. Or its data may be exchanged by SWAPDB, which pushes nothing.
func (s *Store) watch(ctx context.Context, l *link, now *session) {
	defer now.stopProbes()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	activity := activity{calls: s.idling.Calls, reads: s.tracking.reads, l: l}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if activity.idle(s.idling.After) {
			if !now.suspendProbes(ctx, s.idling.Began) {
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

// probeRound is one round for each connection.
func (s *Store) probeRound(ctx context.Context, l *link, now *session) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	pairs := l.probeNames()
	for names, v := range now.probedPairs {
		if !slices.Contains(pairs, names) { // a slot has moved
			v.stop()
			delete(now.probedPairs, names)
		}
	}
	for _, names := range pairs {
		v := now.probedPairs[names]
		if v == nil {
			v = &probedPair{keys: [2]*probe{s.newProbe(now, names[0]), s.newProbe(now, names[1])}}
			now.probedPairs[names] = v
		}
		if err := s.probePair(ctx, now.client, v); err != nil {
			return err
		}
	}
	return nil
}

// probePair writes one key of a pair, which the server must push, and reads both. The reply of that read comes behind the push about
// the write. So a process that was paused does not take its own pause for silence of the server. Unless a push has named the other
// key since it was read last, its value must still be the one that was written in an earlier round:
//
//  1. The other key is read: the data is the same.
//  2. The data is exchanged.
//  3. This key is written and read, in the other data. It shows nothing.
//
// A round that fails leaves the other key as it is, so a later round compares it.
func (s *Store) probePair(ctx context.Context, c rueidis.Client, v *probedPair) error {
	key, other := v.keys[v.next], v.keys[1-v.next]
	before, tracked := key.tracked()
	if !tracked {
		if _, err := readTracked(ctx, c, []string{key.name}); err != nil {
			return err
		}
		before, _ = key.tracked()
	}
	value := crypto.Text()
	err := s.writeProbe(ctx, c, key.name, value)
	_, refused := rueidis.IsRedisErr(err) // a server that stores nothing now may still push changes
	if err != nil && (!refused || isReplica(err)) {
		return err
	}
	if _, err := readTracked(ctx, c, []string{key.name, other.name}); err != nil {
		return err
	}
	exchanged := v.compare(other)
	if !refused {
		if err := key.await(ctx, before); err != nil {
			return err
		}
		if read, pushes := key.last(); read == value {
			v.written, v.pushes = value, pushes
			v.next = 1 - v.next
		} // else a later round compares the other key again
	}
	if exchanged {
		return errOtherData
	}
	return nil
}

// compare reports whether the key that was not written has another value, which no push explains. The value of a key that has
// another one is no longer known.
func (v *probedPair) compare(other *probe) (exchanged bool) {
	if v.written == "" {
		return false
	}
	value, pushes := other.last()
	exchanged = value != v.written && pushes == v.pushes
	if v.pushes = pushes; value != v.written {
		v.written = ""
	}
	return exchanged
}

func (v *probedPair) stop() {
	for _, key := range v.keys {
		key.stop()
	}
}

// comparesAll reports whether the next round compares a value of every pair with what was written.
func (s *session) comparesAll() bool {
	for _, v := range s.probedPairs {
		if v.written == "" {
			return false
		}
	}
	return len(s.probedPairs) > 0
}

func (s *session) stopProbes() {
	for _, v := range s.probedPairs {
		v.stop()
	}
}

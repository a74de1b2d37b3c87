package redisstore

import (
	"context"
	"errors"
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// A watermark is what is known of the watermark of one server.
type watermark struct {
	last atomic.Uint64 // that was written, or read, at the server
	gone atomic.Bool   // it was missing: see errWatermarkGone
}

// watermarkLife is how long a watermark is kept after it was last written.
const watermarkLife = 4 * time.Hour

// readWatermark calls OnWatermark with the watermark that the server has.
func (s *Store) readWatermark(ctx context.Context, l *link, c rueidis.Client) error {
	return s.readWatermarkUpTo(ctx, l, c, math.MaxUint64)
}

// readWatermarkUpTo is readWatermark where a later watermark than most says nothing of the server's data.
func (s *Store) readWatermarkUpTo(ctx context.Context, l *link, c rueidis.Client, most uint64) error {
	if l.hasNoSlots() || l.handedOver.Load() {
		return nil // nothing was confirmed there that it could have lost
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for {
		last := l.watermark.last.Load()
		r := c.Do(ctx, c.B().Get().Key(l.ownName(watermarkName)).Build())
		if err := r.Error(); classOf(err) != answer {
			return err
		}
		mark, _ := r.AsUint64() // 0 if it is missing, or no number
		if l.watermark.last.CompareAndSwap(last, mark) {
			s.onWatermark(min(mark, most))
			return nil
		} // another one was written meanwhile: what was read may be the one before
	}
}

// WriteWatermark writes a number at all servers. OnWatermark gets it back when a connection to one is made. Numbers grow. A server
// that replaces another one has the watermark if that one has replicated it: replication keeps the order of writes.
func (s *Store) WriteWatermark(ctx context.Context, mark uint64) error {
	t := s.table.Load()
	if len(t.nodes) == 0 {
		return ErrUnavailable
	}
	for _, l := range t.nodes {
		if l.hasNoSlots() {
			continue
		}
		if err := s.writeWatermarkAt(ctx, l, mark); err != nil {
			return err
		}
	}
	return nil
}

// writeWatermarkAt writes a watermark at one server, over the last one that was written or read there. Where an earlier one is
// found, or one where there was none, the server's data was replaced by earlier data, which lacks the invalidations in between.
func (s *Store) writeWatermarkAt(ctx context.Context, l *link, mark uint64) error {
	last, next := l.watermark.last.Load(), strconv.FormatUint(mark, 10)
	name := l.ownName(watermarkName)
	args := []string{next, strconv.FormatUint(last, 10), strconv.FormatInt(watermarkLife.Milliseconds(), 10), ""}
	if now := l.latest.Load(); now != nil && now.tracked { // otherwise the connection is not probed
		args[3] = "1"
	}
	there, err := s.run(ctx, []call{{writeWatermark, []string{name}, args}})[0].ToString()
	if err != nil {
		return err
	}
	if now := l.latest.Load(); now != nil {
		signal(now.wake)
	}
	if there == "" {
		l.watermark.gone.Store(true)
		return errWatermarkGone
	}
	if found, err := strconv.ParseUint(there, 10, 64); err == nil && (found < last || last == 0 && found > 0) {
		for _, w := range l.conns() {
			w.revoke()
		}
		l.watermark.last.Store(found)
		s.onWatermark(found) // it sends again what the server lacks, and then writes a watermark
		return nil
	}
	l.watermark.last.Store(mark)
	return nil
}

// errWatermarkGone means that a watermark was not written yet, since the one before is missing. It may have been evicted, or the
// data replaced:
//
//  1. This process has written a watermark.
//  2. The data is replaced by earlier data, which has none.
//  3. Another watermark is written. It looks as if the data contained all that was confirmed.
//
// So the connection is probed first, which finds out whether the data is the same: see watch.
var errWatermarkGone = errors.New("the watermark that was written last is gone")

// writeWatermark writes a watermark and answers with the one before.
//
//	KEYS  the watermark's key
//	ARGV  the watermark, the one that was written before it or 0, its life in ms, "1" to write nothing where that one is missing
//
// Where the server has an earlier watermark than that, or one where there was none, it is left for now: this process first has to
// send again what came later.
//
// The key is deleted first. A server without memory allows that, and then allows the SET: it stops no script that has written. So
// what is invalidated meanwhile need not be remembered until there is memory again.
var writeWatermark = newScript(stats.Other, `
local there = redis.call('GET', KEYS[1])
local last = tonumber(ARGV[2])
if there and tonumber(there) and (last == 0 or tonumber(there) < last) then
	return there
end
if not there and ARGV[4] == '1' and last > 0 then
	return ''
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return there or ARGV[2]
`)

// checkWatermark finds out whether the server has an earlier watermark than this process has written there. The probed keys may
// have been pushed meanwhile, as where the server's table of tracked keys is full, and then they say nothing. A missing watermark
// may have been evicted. This check is not for a session that is being made: that may well have reached another server, and
// readWatermark finds that out.
func (s *Store) checkWatermark(ctx context.Context, l *link, c rueidis.Client) error {
	last := l.watermark.last.Load() // before the watermark is read: watermarks grow
	if last == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if found, err := c.Do(ctx, c.B().Get().Key(l.ownName(watermarkName)).Build()).AsUint64(); err == nil && found < last {
		return errOtherData
	}
	return nil
}

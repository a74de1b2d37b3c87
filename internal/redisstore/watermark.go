package redisstore

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A watermark is what is known of the watermark of one server.
type watermark struct {
	last atomic.Uint64 // that was written, or read, at the server
	gone atomic.Bool   // it was missing: see errWatermarkGone
}

// markLife is how long that is kept after it was written last.
const watermarkLife = 4 * time.Hour

// readMark tells Marked what the server knows of.
func (s *Store) readWatermark(ctx context.Context, l *link, c rueidis.Client) error {
	if l.hasNoSlots() || l.handedOver.Load() {
		return nil // it has nothing that it could have forgotten
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	r := c.Do(ctx, c.B().Get().Key(l.ownName(watermarkName)).Build())
	if err := r.Error(); classOf(err) != answer {
		return err
	}
	mark, _ := r.AsUint64() // without one, or with something else in its place, it knows of nothing
	l.watermark.last.Store(mark)
	s.onWatermark(mark)
	return nil
}

// Mark has all servers know a number, which Marked is told when a connection to one is made. Numbers grow. A server that takes the
// place of another one knows what that has passed on to it: replication keeps the order of writes.
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

// markAt writes a mark at one server, over the last one that was written or read there. Where there is another one, the server's data
// was exchanged for what it had been before: it does not know of the invalidations in between.
func (s *Store) writeWatermarkAt(ctx context.Context, l *link, mark uint64) error {
	last, next := l.watermark.last.Load(), strconv.FormatUint(mark, 10)
	name := l.ownName(watermarkName)
	args := []string{next, strconv.FormatUint(last, 10), strconv.FormatInt(watermarkLife.Milliseconds(), 10), ""}
	if now := l.latest.Load(); now != nil && now.tracked { // else nobody finds out
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
	if found, err := strconv.ParseUint(there, 10, 64); err == nil && found < last {
		for _, w := range l.conns() {
			w.revoke()
		}
		l.watermark.last.Store(found)
		s.onWatermark(found) // which has what it does not know sent again, and a mark written after that
		return nil
	}
	l.watermark.last.Store(mark)
	return nil
}

// errMarkGone means that a mark was not written yet, since the one before is missing. It may have been evicted, or the data exchanged:
//
//  1. This process has written a mark.
//  2. The data is exchanged for what it was before, in which there is none.
//  3. Another mark is written. Whoever looks for the last one finds it, as if the data knew of all that was confirmed.
//
// So first the connection is tried, which finds out whether it is the same data: see watch.
var errWatermarkGone = errors.New("the mark that was written last is gone")

// writeMark writes a mark and answers with the one before.
//
//	KEYS  the mark's key
//	ARGV  the mark, the one that was written before it, its life in ms, whether it is left alone where that one is missing
//
// Where the server has an earlier one than that, it is left for now: whoever finds it has to send again what came later.
//
// The key is deleted first, which a server without memory allows, and after that it allows the SET: it stops no script that has written.
// So what is invalidated meanwhile does not have to be remembered until there is memory again.
var writeWatermark = newScript(`
local there = redis.call('GET', KEYS[1])
if there and tonumber(there) and tonumber(there) < tonumber(ARGV[2]) then
	return there
end
if not there and ARGV[4] == '1' and tonumber(ARGV[2]) > 0 then
	return ''
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return there or ARGV[2]
`)

// knowsLastMark finds out whether the server has an earlier mark than this process has written there. What else is tried may have been
// named meanwhile, as where the server's table of tracked keys is full, and then says nothing. A mark that is missing may have been
// evicted. It is not for a session that is being made: that may well have found another server, and recall is what finds out.
func (s *Store) checkWatermark(ctx context.Context, l *link, c rueidis.Client) error {
	last := l.watermark.last.Load() // before the mark is read: marks grow
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

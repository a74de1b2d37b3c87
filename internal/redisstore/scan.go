package redisstore

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/rueidis"
)

// scanCount is how many places of the server's table one SCAN looks at.
const scanCount = 250

// ErrMoved means that the server was lost, or another one has taken its place, while its keys were gone through: what was seen
// until then may not be all.
var ErrMoved = errors.New("redis was lost while its keys were gone through")

// Scan goes through all keys of all servers, once for each pattern of the servers', one pattern after the other, and gives those
// that match to visit, a page at a time. An empty pattern matches all. A key that is there throughout a pass is seen in it at least
// once. With a namespace, only what is in it is seen, by the names that it has there. An error means that it has not got to the end:
// that of visit, of a server, or ErrMoved.
func (s *Store) Scan(ctx context.Context, visit func(keys []string) error, patterns ...string) error {
	w := walk{Store: s, visit: visit}
	err := w.start()
	if err == nil && w.table.only() == nil { // one that is not up is not looked at first: that may take long
		if err = s.awaitRefresh(ctx); err == nil {
			err = w.start()
		}
	}
	if err != nil {
		return err
	}
	for _, match := range patterns {
		match = s.namespace.pattern(match)
		if err := w.pass(ctx, match); err != nil {
			return err
		}
		if w.table.only() != nil {
			continue
		}
		// What has come to a server that was gone through before it did, from one that was not yet, has not been seen. The table
		// shows that if the slot has changed hands since the walk began. If it is still about to, the key is found where it has
		// gone when all servers are gone through once more: keys go one way.
		if err := s.awaitRefresh(ctx); err != nil {
			return err
		}
		now := s.table.Load()
		if !w.unmoved(now) {
			return ErrMoved
		}
		if w.table.moving || now.moving {
			if err := w.pass(ctx, match); err != nil {
				return err
			}
			if err := s.awaitRefresh(ctx); err != nil {
				return err
			}
			if !w.unmoved(s.table.Load()) {
				return ErrMoved
			}
		}
	}
	return nil
}

// A walk goes through the keys of all servers.
type walk struct {
	*Store
	table *table
	since []time.Time // when each server was in use without a break since
	visit func(keys []string) error
}

// begin notes what the walk begins with.
func (w *walk) start() error {
	w.table, w.since = w.Store.table.Load(), nil
	for _, l := range w.table.nodes {
		w.since = append(w.since, l.upSince())
	}
	if len(w.since) == 0 || slices.ContainsFunc(w.since, time.Time.IsZero) || !w.table.complete() {
		return ErrUnavailable
	}
	return nil
}

// unmoved reports whether all slots are where they were when the walk began.
func (w *walk) unmoved(now *table) bool {
	if now == w.table {
		return true
	}
	other := *now
	other.moving = w.table.moving
	return other.same(w.table)
}

// pass goes through the keys once. A replica's keys are those of its primary: to see them twice would cost time alone.
func (w *walk) pass(ctx context.Context, match string) error {
	for i, l := range w.table.nodes {
		for cursor := uint64(0); ; {
			page, err := l.page(ctx, cursor, match)
			if err == nil {
				if keys := w.namespace.ownOf(page.Elements); len(keys) > 0 {
					err = w.visit(keys)
				}
			}
			if err == nil && (!l.upSince().Equal(w.since[i]) || !w.unmoved(w.Store.table.Load())) {
				err = ErrMoved // where a cursor means something else
			}
			if err != nil {
				return err
			}
			if cursor = page.Cursor; cursor == 0 {
				break
			}
		}
	}
	return nil
}

// standing is since when the server has been in use without a break, zero if it is not.
func (l *link) upSince() time.Time {
	if state := l.State(); state.Up && l.Up() {
		return state.Since
	}
	return time.Time{}
}

func (l *link) page(ctx context.Context, cursor uint64, match string) (rueidis.ScanEntry, error) {
	var entry rueidis.ScanEntry
	err := l.portion(ctx, func(ctx context.Context) (err error) {
		session := l.session.Load()
		if session == nil {
			return ErrUnavailable
		}
		var cmd rueidis.Completed
		if match == "" {
			cmd = session.client.B().Scan().Cursor(cursor).Count(scanCount).Build()
		} else {
			cmd = session.client.B().Scan().Cursor(cursor).Match(match).Count(scanCount).Build()
		}
		found, err := session.within(ctx, func(c rueidis.Client) []rueidis.RedisResult { return []rueidis.RedisResult{c.Do(ctx, cmd)} })
		if err == nil {
			entry, err = found[0].AsScanEntry()
		}
		if isUnusual(err) {
			l.scans.Store(true) // it is needed here, so whether it is carried out belongs to what is examined
			signal(session.suspect)
		}
		return err
	})
	return entry, err
}

// Writable finds out whether all servers take writes: one that has become a replica has keys to go through too, but not all.
func (s *Store) Writable(ctx context.Context) error {
	for _, err := range s.onEach(ctx, true, func(c rueidis.Client, l *link) rueidis.Completed {
		return c.B().Set().Key(l.ownName(probeName)).Value("").Px(probeLife).Build()
	}) {
		if err != nil && code(err) != "ASK" { // the slot of that name is on its way; a replica would not have said so
			return err
		}
	}
	return nil
}

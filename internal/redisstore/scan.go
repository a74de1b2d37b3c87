package redisstore

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/rueidis"
)

// scanCount is how many places of the server's hash table one SCAN looks at.
const scanCount = 250

// ErrMoved means that a server was lost or replaced during a scan. The keys that were seen may not be all.
var ErrMoved = errors.New("redis was lost during a scan")

// Scan scans the keys of all servers, once for each of the servers' patterns, one pattern after the other, and calls visit with
// the keys that match, a page at a time. An empty pattern matches all keys. A key that exists throughout a pass is seen at least
// once in it. With a namespace, only keys in it are seen, without the namespace. An error means that the scan is not complete: it
// is that of visit, of a server, or ErrMoved.
func (s *Store) Scan(ctx context.Context, visit func(keys []string) error, patterns ...string) error {
	w := walk{Store: s, visit: visit}
	err := w.start()
	if err == nil && w.table.only() == nil { // if a server is down, this fails before a refresh, which may take long
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
		// A key may have moved to a server that was scanned before, from one that was scanned after. Then it was not seen. The table
		// shows that if the slot has changed hands since the walk began. If the slot is still moving, a second pass over all
		// servers finds the key at its new node: keys move one way.
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

// A walk scans the keys of all servers.
type walk struct {
	*Store
	table *table
	since []time.Time // since when each server has been in use without a break
	visit func(keys []string) error
}

// start notes the state in which the walk begins.
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

// pass scans the keys once. Replicas are left out: they have the keys of their primaries.
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
				err = ErrMoved // the cursor is not valid at another server
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

// upSince is since when the server has been in use without a break, zero if it is not in use.
func (l *link) upSince() time.Time {
	if state := l.State(); state.Up && l.Up() {
		return state.Since
	}
	return time.Time{}
}

func (l *link) page(ctx context.Context, cursor uint64, match string) (rueidis.ScanEntry, error) {
	var entry rueidis.ScanEntry
	err := l.portion(ctx, func(ctx context.Context) (worked time.Duration, err error) {
		session := l.session.Load()
		if session == nil {
			return 0, ErrUnavailable
		}
		found, err := session.within(ctx, func(c rueidis.Client) (found []rueidis.RedisResult) {
			found, _, worked = sendTimed(ctx, c, 0, 1, func(c rueidis.Client, _ int) rueidis.Completed {
				if match == "" {
					return c.B().Scan().Cursor(cursor).Count(scanCount).Build()
				}
				return c.B().Scan().Cursor(cursor).Match(match).Count(scanCount).Build()
			})
			return found
		})
		if err == nil {
			entry, err = found[0].AsScanEntry()
		}
		if isUnusual(err) {
			l.scans.Store(true) // SCAN is needed, so examine tries it too from now on
			signal(session.suspect)
		}
		return worked, err
	})
	return entry, err
}

// Writable finds out whether all servers accept writes. A server that has become a replica has keys to scan too, but not all.
func (s *Store) Writable(ctx context.Context) error {
	for _, err := range s.onEach(ctx, true, func(c rueidis.Client, l *link) rueidis.Completed {
		return c.B().Set().Key(l.ownName(probeName)).Value("").Px(probeLife).Build()
	}) {
		if err != nil && code(err) != "ASK" { // the slot of that name is moving; a replica would not have answered so
			return err
		}
	}
	return nil
}

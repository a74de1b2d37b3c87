package redisstore

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"
)

// replicasPause is how long one WAIT takes: a connection that is silent for longer is taken for broken.
const replicasPause = 100 * time.Millisecond

// Replicated waits until n replicas of each server have everything that the server has confirmed so far, or ctx ends, or a server
// is lost.
func (s *Store) Replicated(ctx context.Context, n int) error {
	t := s.table.Load()
	if len(t.nodes) == 0 {
		return ErrUnavailable
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for _, l := range t.nodes {
		if l.hasNoSlots() {
			continue // writes go to the node that has the slots
		}
		all.Go(func() {
			if err := l.replicated(ctx, n); err != nil {
				cancel(err) // the others need not go on
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// ErrLost means that a server was lost, and another one may have replaced it.
var ErrLost = errors.New("redis was lost")

// replicated uses a connection of its own: WAIT is about the writes of the same connection, and blocks it. Replication keeps the
// order of writes, so a replica that has what is written here has all that came before.
func (l *link) replicated(ctx context.Context, n int) error {
	before := l.session.Load()
	if before == nil {
		return ErrUnavailable
	}
	opt := l.options
	opt.DisableCache = true
	own, err := l.try(ctx, opt, purpose{beside: before})
	if err != nil {
		return err
	}
	defer own.client.Close()
	c := own.client
	if err := c.Do(ctx, c.B().Set().Key(l.ownName(probeName)).Value("").Px(probeLife).Build()).Error(); err != nil {
		return err
	}
	for {
		// Sent as an arbitrary command: rueidis sends a command that it knows to block by yet another connection.
		have, err := c.Do(ctx, c.B().Arbitrary("WAIT", strconv.Itoa(n), strconv.FormatInt(replicasPause.Milliseconds(), 10)).Build()).AsInt64()
		if err == nil && l.session.Load() != before {
			err = ErrLost
		}
		if err != nil || have >= int64(n) {
			return err
		}
	}
}

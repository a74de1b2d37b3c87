package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Hear waits until this process has handled what the servers in use had pushed or announced when Hear was called, or until ctx ends. A push has a
// place among the replies of its connection, so a tracked read on each connection is behind it. Announcements come in the order in which they were
// sent, so an announcement of this process's own is behind them.
func (s *Store) Hear(ctx context.Context) error {
	for _, l := range s.table.Load().nodes {
		for l.Up() {
			err := s.hear(ctx, l)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("messages from redis about changes may not have come: %w", err)
			}
			sleep(ctx, firstRetry) // the connection may be about to be mended, or given up
		}
	}
	return nil
}

func (s *Store) hear(ctx context.Context, l *link) error {
	now := l.session.Load()
	switch {
	case now == nil:
		return ErrUnavailable
	case l.Tracked():
		return l.trackAll(ctx, now.client)
	case s.announcements.validity() == nil:
		return nil // memory holds nothing that rests on announcements
	}
	name, came := s.announcements.marks.begin()
	defer s.announcements.marks.end(name)
	ctx, cancel := context.WithTimeout(ctx, time.Second) // it may get lost: then another one is sent
	defer cancel()
	if err := now.client.Do(ctx, now.client.B().Publish().Channel(s.channel()).Message(s.announcements.self+name).Build()).Error(); err != nil {
		return err
	}
	select {
	case <-came:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// markPrefix begins the names of marks. No key begins with a percent sign that is not part of an escape, and no tag with this.
const markPrefix = "%heard "

func isMark(name string) bool { return strings.HasPrefix(name, markPrefix) }

// marks are announcements by which this process finds out whether those before have come. Other processes ignore them.
type marks struct {
	mu    sync.Mutex
	last  int                      // guarded by mu
	await map[string]chan struct{} // closed when the mark with this name has come; guarded by mu
}

func (m *marks) begin() (name string, came <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	name = markPrefix + strconv.Itoa(m.last)
	if m.await == nil {
		m.await = make(map[string]chan struct{})
	}
	c := make(chan struct{})
	m.await[name] = c
	return name, c
}

func (m *marks) end(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.await, name)
}

// arrived takes an announcement of this process itself.
func (m *marks) arrived(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.await[name]; c != nil {
		close(c)
		delete(m.await, name)
	}
}

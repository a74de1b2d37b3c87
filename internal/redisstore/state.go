package redisstore

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// State is the state of a link.
type State struct {
	Up    bool
	Since time.Time
	Cause error // why the link is not up; nil before the first attempt has failed
	// Silent: the server does not track, and does not let this process announce what it changes. Other processes notice a change
	// when their values are UntrackedLife old.
	Silent bool
}

// differs reports whether s says something new after before.
func (s State) differs(before State) bool {
	return s.Up != before.Up || s.Silent != before.Silent || s.Cause != nil &&
		(before.Cause == nil || classOf(s.Cause) != classOf(before.Cause) || isTLS(s.Cause) && !isTLS(before.Cause))
}

// A status is the state of a link, and who is notified of its changes.
type status struct {
	onState func(State)

	mu    sync.Mutex
	state State      // guarded by mu
	cause error      // why lost was signalled; guarded by mu
	trips tripCounts // guarded by mu
}

// report sets the state, and notifies if it has changed.
func (l *link) report(s State) {
	l.mu.Lock()
	changed := s.differs(l.state)
	if changed && s.Up == l.state.Up || s.Since.IsZero() {
		s.Since = l.state.Since // still down, for as long
	}
	l.state = s
	l.mu.Unlock()
	if s.Up || s.Cause != nil {
		l.first.end()
	}
	if changed && l.onState != nil {
		l.onState(s)
	}
}

// down reports why the link is down.
func (l *link) down(cause error) { l.report(State{Cause: cause}) }

// State returns the state of the link.
func (l *link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Up reports whether callers are sent to the server.
func (l *link) Up() bool { return l.session.Load() != nil }

// Tracked reports whether the server pushes changes of the keys that were read.
func (l *link) Tracked() bool { return !l.untracked.Load() }

// UpFor reports whether callers are sent to the server that has key.
func (s *Store) UpFor(key string) bool {
	l := s.table.Load().of(s.namespace.name(key))
	return l != nil && l.Up()
}

// AllUp reports whether callers are sent to every server.
func (s *Store) AllUp() bool {
	t := s.table.Load()
	return len(t.nodes) > 0 && !slices.ContainsFunc(t.nodes, func(l *link) bool { return !l.Up() }) && (t.slots == nil || t.complete())
}

// Contact returns how often the connection to the server that has key has come up, and whether it is up. If two calls return the
// same count and the second one says that it is down, it has not come up in between.
func (s *Store) Contact(key string) (ups uint64, up bool) {
	l := s.table.Load().of(s.namespace.name(key))
	if l == nil {
		return 0, false
	}
	up = l.Up()
	return l.ups.Load(), up
}

// Tracks reports whether the server that has key pushes changes of the key.
func (s *Store) Tracks(key string) bool {
	l := s.table.Load().of(s.namespace.name(key))
	return l == nil || l.Tracked()
}

// An OnNode is called with the address of a node of a cluster and each change of its state. gone says that the node is not used any more.
type OnNode func(addr string, s State, gone bool)

// A clusterStatus is the state of all links together, and who is notified of its changes.
type clusterStatus struct {
	onState   func(State)
	onNode    OnNode
	notifying sync.Mutex // held while onState is called, so that it is called with states in their order

	mu    sync.Mutex
	state State // that onState was last called with; guarded by mu
	cause error // why nothing is known of the cluster; guarded by mu
}

// State returns the state of the connection. It is up while every key has a node, and all nodes are up.
func (t *topology) State() State {
	now := t.table.Load()
	if only := now.only(); only != nil {
		return only.State()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// Up reports whether callers are sent to any server.
func (t *topology) Up() bool {
	return slices.ContainsFunc(t.table.Load().nodes, (*link).Up)
}

// Tracked reports whether all servers push changes.
func (t *topology) Tracked() bool {
	return !slices.ContainsFunc(t.table.Load().nodes, func(l *link) bool { return !l.Tracked() })
}

// errNoNode is the cause when some slots of a cluster have no node.
var errNoNode = errors.New("some slots of the cluster have no node")

// notifyNode notifies of the state of one node.
func (t *topology) notifyNode(addr string, s State, gone bool) {
	if t.onNode != nil {
		t.onNode(addr, s, gone)
	}
}

// notifyState determines the state of all nodes together, and notifies if it has changed.
func (t *topology) notifyState() {
	t.notifying.Lock()
	defer t.notifying.Unlock()
	if next, changed := t.newState(); changed && t.onState != nil {
		t.onState(next)
	}
}

func (t *topology) newState() (next State, changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.table.Load()
	next = State{Up: len(now.nodes) > 0}
	for _, l := range now.nodes {
		if l.hasNoSlots() {
			continue // callers reach it only by redirects
		}
		s := l.State()
		switch {
		case !s.Up && (next.Up || next.Cause == nil):
			next = s
		case s.Up && next.Up && s.Since.After(next.Since):
			next.Since = s.Since
		}
	}
	if len(now.nodes) == 0 {
		next.Cause = t.cause
	} else if next.Up && !now.complete() {
		next = State{Since: time.Now(), Cause: errNoNode}
	}
	changed = next.differs(t.state)
	if !changed || next.Up == t.state.Up || next.Since.IsZero() {
		next.Since = t.state.Since
	}
	t.state = next // its cause may be a different error of the same kind
	return next, changed
}

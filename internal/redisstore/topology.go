package redisstore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/redis/rueidis"
)

const (
	// heartbeat is how often each node of a cluster is asked for its state and the owners of the slots. A node that another one
	// has replaced, or that is cut off from the others, pushes no changes, although its connections look sound.
	heartbeat        = time.Second
	heartbeatTimeout = time.Second
	// refreshPause is the least time between two refreshes: many commands find out at the same time that the table is out of date.
	refreshPause = 20 * time.Millisecond
)

// Takeover bounds how long a cluster node is trusted after another node that can be reached has taken its slots: a heartbeat, the
// time that the slowest node has to answer it, and some for this process.
const Takeover = heartbeat + heartbeatTimeout + time.Second

// A topology knows which server has which key: one server all of them, or the primaries of a cluster a part each. Each server has
// a link of its own, and so its own connector, breaker and validities. Replicas are not used.
type topology struct {
	table     atomic.Pointer[table]
	outdated  chan struct{}      // wakes the background goroutine, with room for one
	refreshes chan chan struct{} // asks it for a refresh
	firsts    firsts
	hanging   guard.Hanging // dials
	newLink   func(*slotSet) *link
	options   rueidis.ClientOption
	clusterStatus
	discovery discovery

	stop    context.CancelFunc
	done    chan struct{}  // closed when the background goroutine has ended
	closing sync.WaitGroup // links of nodes that are gone
}

// open begins to connect. A single server, or one that Sentinels name, is not asked whether it is part of a cluster. Neither is
// one whose database is not the first: clusters have no others.
func (t *topology) open(opt rueidis.ClientOption, onState func(State)) {
	ctx, stop := context.WithCancel(context.Background())
	t.options, t.onState, t.stop = opt, onState, stop
	t.outdated, t.refreshes, t.done = make(chan struct{}, 1), make(chan chan struct{}), make(chan struct{})
	t.state = State{Since: time.Now()}
	t.table.Store(&table{})
	if opt.ForceSingleClient || opt.Sentinel.MasterSet != "" || opt.SelectDB != 0 {
		t.useServer(opt, 0)
		go func() {
			defer close(t.done)
			<-ctx.Done()
		}()
		return
	}
	go t.keep(ctx)
}

// useServer uses one server for all keys. Where several addresses of it are known, it was found at the one with this number.
func (t *topology) useServer(opt rueidis.ClientOption, found int, addrs ...string) {
	l := t.newLink(nil)
	l.addrs = addrs
	l.at.Store(int32(found))
	l.open(opt, t.onState)
	t.table.Store(&table{nodes: []*link{l}}) // not before it is open: callers that find the link use it
	t.firsts.found.end()
}

// Close closes all connections and ends the background work.
func (t *topology) Close() {
	t.stop()
	<-t.done
	var all sync.WaitGroup
	for _, l := range t.table.Load().nodes {
		all.Go(l.Close)
	}
	all.Wait()
	t.closing.Wait()
}

// keep finds out whether there is a cluster, and follows its changes.
func (t *topology) keep(ctx context.Context) {
	defer close(t.done)
	defer t.firsts.found.end()
	alone := false
	ok := retry(ctx, t.reportUnknown, func() error {
		at, views, err := t.discover(ctx, t.options.InitAddress)
		switch {
		case err != nil:
			return err
		case views == nil:
			alone = true
			opt := t.options
			opt.ForceSingleClient = true
			t.useServer(opt, slices.Index(opt.InitAddress, at), opt.InitAddress...)
		default:
			t.apply(views)
		}
		return nil
	})
	if !ok {
		return
	}
	if alone {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		var asked chan struct{}
		select {
		case <-ctx.Done():
			return
		case <-t.outdated:
		case asked = <-t.refreshes:
		case <-tick.C:
		}
		t.refresh(ctx)
		if asked != nil {
			close(asked)
		}
		pause := time.NewTimer(refreshPause)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// reportUnknown reports why no server is known.
func (t *topology) reportUnknown(cause error) {
	t.mu.Lock()
	t.cause = cause
	t.mu.Unlock()
	t.firsts.found.end()
	t.notifyState()
}

package redisstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/redis/rueidis"
)

const (
	// heartbeat is how often each node of a cluster is asked how it stands and who has which slot. A node that another one has
	// replaced, or that is cut off from the others, tells nobody of changes, and its connections look sound.
	heartbeat        = time.Second
	heartbeatTimeout = time.Second
	// nextLook is how soon after one look at the cluster there can be another: many commands find out at the same time that the
	// table is out of date.
	nextLook = 20 * time.Millisecond
)

// Takeover bounds how long a node of a cluster is taken at its word after another one that can be reached has taken its slots:
// a heartbeat, the time that the slowest node has to answer it, and some for this process.
const Takeover = heartbeat + heartbeatTimeout + time.Second

// A topology knows which server has which key: one server all of them, or the primaries of a cluster a part each. Each has a link
// of its own, and so a connector, a breaker and validities of its own. Replicas are left alone.
type topology struct {
	table    atomic.Pointer[table]
	outdated chan struct{}      // wakes the background goroutine, with room for one
	looks    chan chan struct{} // asks it for a look at the cluster
	firsts   firsts
	hanging  guard.Hanging // dials
	newLink  func(*slotSet) *link
	options  rueidis.ClientOption
	onState  func(State)

	telling sync.Mutex // held while a state is told on, so that they are told in their order

	mu    sync.Mutex
	state State    // as it was told last; guarded by mu
	cause error    // why nothing is known of the cluster; guarded by mu
	known []string // addresses of all nodes, those without slots included; guarded by mu

	renamed atomic.Bool // nodes want to be reached by other addresses than those that they have among themselves

	// Of the background goroutine: where no node lets us in, scouts are sent out less and less often.
	noScoutBefore time.Time
	scoutPause    time.Duration

	stop    context.CancelFunc
	done    chan struct{}  // closed when the background goroutine has ended
	closing sync.WaitGroup // links of nodes that are gone
}

// open begins to connect. A server that is to be used alone, or whose address a Sentinel knows, is not asked whether it is part of
// a cluster, and neither is one of whose databases another one than the first is wanted: clusters have no others.
func (t *topology) open(opt rueidis.ClientOption, onState func(State)) {
	ctx, stop := context.WithCancel(context.Background())
	t.options, t.onState, t.stop = opt, onState, stop
	t.outdated, t.looks, t.done = make(chan struct{}, 1), make(chan chan struct{}), make(chan struct{})
	t.state = State{Since: time.Now()}
	t.table.Store(&table{})
	if opt.ForceSingleClient || opt.Sentinel.MasterSet != "" || opt.SelectDB != 0 {
		t.settle(opt, 0)
		go func() {
			defer close(t.done)
			<-ctx.Done()
		}()
		return
	}
	go t.keep(ctx)
}

// settle has one server for everything. Where several addresses of it are known, it was found at the one with this number.
func (t *topology) settle(opt rueidis.ClientOption, found int, addrs ...string) {
	l := t.newLink(nil)
	l.addrs = addrs
	l.at.Store(int32(found))
	l.open(opt, t.onState)
	t.table.Store(&table{nodes: []*link{l}}) // not before: whoever finds it there uses it
	t.firsts.found.end()
}

// Close ends all connections and the background work.
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

// State tells how the connection stands: it is up while every key has a node, and all of those are.
func (t *topology) State() State {
	now := t.table.Load()
	if only := now.only(); only != nil {
		return only.State()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// Up reports whether anybody is sent to a server now.
func (t *topology) Up() bool {
	return slices.ContainsFunc(t.table.Load().nodes, (*link).Up)
}

// Tracked reports whether all servers tell of changes.
func (t *topology) Tracked() bool {
	return !slices.ContainsFunc(t.table.Load().nodes, func(l *link) bool { return !l.Tracked() })
}

// errNoNode is why the connection to a cluster is not up whose slots are not all somebody's.
var errNoNode = errors.New("some slots of the cluster have no node")

// restate finds out how all nodes stand, and tells it on where that is another state than before.
func (t *topology) restate() {
	t.telling.Lock()
	defer t.telling.Unlock()
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
		if l.idle() {
			continue // nobody is sent to it yet but by others
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
	t.state = next // its cause may be another one of the same kind
	return next, changed
}

// keep finds out whether there is a cluster, and follows its changes.
func (t *topology) keep(ctx context.Context) {
	defer close(t.done)
	defer t.firsts.found.end()
	alone := false
	ok := retry(ctx, t.unknown, func() error {
		at, views, err := t.scout(ctx, t.options.InitAddress)
		switch {
		case err != nil:
			return err
		case views == nil:
			alone = true
			opt := t.options
			opt.ForceSingleClient = true
			t.settle(opt, slices.Index(opt.InitAddress, at), opt.InitAddress...)
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
		case asked = <-t.looks:
		case <-tick.C:
		}
		t.look(ctx)
		if asked != nil {
			close(asked)
		}
		pause := time.NewTimer(nextLook)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// unknown notes why nothing is known of any server.
func (t *topology) unknown(cause error) {
	t.mu.Lock()
	t.cause = cause
	t.mu.Unlock()
	t.firsts.found.end()
	t.restate()
}

// isNode reports whether a server that may not be asked about its cluster is part of one. To say so is part of its greeting.
func isNode(ctx context.Context, c rueidis.Client) bool {
	hello, err := c.Do(ctx, c.B().Arbitrary("HELLO").Build()).AsMap()
	if err != nil {
		return false
	}
	mode := hello["mode"]
	text, _ := mode.ToString()
	return text == "cluster"
}

// look asks each node of the cluster, or, if none answers, whoever else may know.
func (t *topology) look(ctx context.Context) {
	nodes := t.table.Load()
	views := make([]view, len(nodes.nodes))
	errs := make([]error, len(nodes.nodes))
	var all sync.WaitGroup
	for i, l := range nodes.nodes {
		all.Go(func() { views[i], errs[i] = t.ask(ctx, l, nodes.addrs[i]) })
	}
	all.Wait()
	var answers []view
	for i, v := range views {
		if errs[i] == nil {
			answers = append(answers, v)
		}
	}
	if len(answers) == 0 && time.Now().After(t.noScoutBefore) {
		t.mu.Lock()
		addrs := slices.Concat(t.known, t.options.InitAddress)
		t.mu.Unlock()
		_, answers, _ = t.scout(ctx, addrs)
		if slices.ContainsFunc(nodes.nodes, func(l *link) bool { return !needsSomebody(l.State().Cause) }) {
			t.scoutPause = 0
		} else {
			t.scoutPause = min(max(2*t.scoutPause, heartbeat), slowRefused)
			t.noScoutBefore = time.Now().Add(t.scoutPause/2 + rand.N(t.scoutPause))
		}
	}
	if len(answers) > 0 && ctx.Err() == nil {
		t.apply(answers)
	}
	t.restate()
}

// ask asks one node how it stands. One that does not serve its slots any more vouches for nothing.
func (t *topology) ask(ctx context.Context, l *link, addr string) (v view, err error) {
	s := l.session.Load()
	if s == nil {
		// Its connection may be sound, and it serves nobody: it may have been replaced, as far as this process can tell.
		l.doubtAgain()
		return view{}, ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	sent := time.Now()
	cmds := rueidis.Commands{s.client.B().ClusterNodes().Build(), s.client.B().Exists().Key(l.ownName(probeName)).Build()}
	if t.renamed.Load() {
		cmds = append(cmds, s.client.B().ClusterSlots().Build())
	}
	answers := s.client.DoMulti(ctx, cmds...)
	if ctx.Err() == nil {
		l.note(ctx, s, min(time.Since(sent), l.grace.now()), 0, answers[1:2]) // a slow one is no failure, and not a quick one either
	}
	if c := code(answers[1].Error()); c == "CLUSTERDOWN" || c == "MOVED" {
		l.doubtAgain()
	}
	text, err := answers[0].ToString()
	if err != nil {
		return view{}, err
	}
	var wanted endpoints
	if len(answers) > 2 {
		if err := answers[2].Error(); err != nil {
			return view{}, err // without it the others would be taken for nodes that are not known yet
		}
		wanted = parseEndpoints(answers[2], addr)
	}
	return parseViewOf(text, addr, t.options.TLSConfig != nil, wanted)
}

// refresh waits until the cluster has been looked at, from the beginning, after it was called.
func (t *topology) refresh(ctx context.Context) error {
	asked := make(chan struct{})
	select {
	case t.looks <- asked:
	case <-ctx.Done():
		return ctx.Err()
	case <-t.done:
		return ErrUnavailable
	}
	select {
	case <-asked:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.done:
		return ErrUnavailable
	}
}

// apply makes the table of what nodes say.
func (t *topology) apply(views []view) {
	claims, targets, moving := merge(views)
	old, next := t.table.Load(), &table{slots: make([]uint16, slots), moving: moving, named: make(map[string]uint16)}
	var owned []*slotSet
	number := func(addr string) uint16 {
		n, ok := next.named[addr]
		if !ok {
			n = uint16(len(next.addrs))
			next.named[addr] = n
			next.addrs, owned = append(next.addrs, addr), append(owned, new(slotSet))
		}
		return n
	}
	for _, v := range views {
		for _, slot := range v.leaving {
			next.leaving.add(slot)
		}
	}
	for slot, c := range claims {
		if c.addr == "" {
			next.slots[slot] = nobody
			continue
		}
		n := number(c.addr)
		next.slots[slot] = n
		owned[n].add(uint16(slot))
	}
	if len(next.addrs) == 0 {
		return // a node that has forgotten the others, or was never told of them
	}
	// Who is about to get its first slots has keys already, and others point to it.
	for _, addr := range targets {
		number(addr)
	}
	for _, v := range views {
		for _, m := range v.members {
			n, ok := next.named[m.addr]
			if !ok {
				continue
			}
			for _, alias := range append(m.others, m.alias) {
				if alias != "" && !slices.Contains(next.addrs, alias) {
					next.named[alias] = n
				}
			}
		}
	}
	t.mu.Lock()
	t.known = t.known[:0]
	for _, v := range views {
		for _, m := range v.members {
			if !slices.Contains(t.known, m.addr) {
				t.known = append(t.known, m.addr)
			}
		}
	}
	t.mu.Unlock()
	if next.same(old) {
		return
	}
	var doubtful, giving, gone []*link
	for i, l := range old.nodes {
		if !slices.Contains(next.addrs, old.addrs[i]) {
			gone = append(gone, l)
		}
	}
	for i, addr := range next.addrs {
		l := old.byAddr(addr)
		if l == nil {
			l = t.newLink(owned[i])
			if len(old.nodes) > 0 {
				l.first.end() // callers have done without it so far
			}
			l.handed.Store(len(gone) == 0 && handedOver(old, next, uint16(i)))
			opt := t.options
			opt.ForceSingleClient, opt.InitAddress = true, []string{addr}
			l.open(opt, func(State) { t.restate() })
		} else {
			if before := l.owned.Swap(owned[i]); owned[i].less(before) {
				doubtful = append(doubtful, l)
			}
			if old.leaving.less(next.leaving.of(owned[i])) {
				giving = append(giving, l)
			}
		}
		next.nodes = append(next.nodes, l)
	}
	t.table.Store(next)
	t.firsts.found.end()
	// A slot that a node does not have any more may be changed at another one, and nobody is told. It is too late for what was
	// read before the table was changed; what is read after that is not taken from a node that the table does not name.
	for _, l := range slices.Concat(doubtful, gone) {
		l.doubt()
	}
	for _, l := range giving {
		for _, w := range l.wires() {
			w.doubtMissing()
		}
	}
	for _, l := range gone {
		t.closing.Go(l.Close)
	}
	t.restate()
}

// handedOver reports whether all slots that a node has come from nodes that are still there and have kept others: they have moved key
// by key, and nothing that was confirmed before is forgotten. A replica that has taken the place of its primary has all of its slots.
func handedOver(old, next *table, node uint16) bool {
	if old.slots == nil {
		return false
	}
	kept := make(map[string]bool)
	for _, n := range next.slots {
		if n != nobody {
			kept[next.addrs[n]] = true
		}
	}
	for slot, n := range next.slots {
		if before := old.slots[slot]; n == node && (before == nobody || !kept[old.addrs[before]]) {
			return false
		}
	}
	return true
}

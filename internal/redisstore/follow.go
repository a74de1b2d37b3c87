package redisstore

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

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

package redisstore

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// refresh asks each node of the cluster or, if none answers, all other known addresses, and applies the answers.
func (t *topology) refresh(ctx context.Context) {
	nodes := t.table.Load()
	views := make([]nodeView, len(nodes.nodes))
	errs := make([]error, len(nodes.nodes))
	var all sync.WaitGroup
	for i, l := range nodes.nodes {
		all.Go(func() { views[i], errs[i] = t.askNode(ctx, l, nodes.addrs[i]) })
	}
	all.Wait()
	var answers []nodeView
	for i, v := range views {
		if errs[i] == nil {
			answers = append(answers, v)
		}
	}
	if len(answers) == 0 && time.Now().After(t.discovery.after) {
		_, answers, _ = t.discover(ctx, slices.Concat(t.discovery.known, t.options.InitAddress))
		if slices.ContainsFunc(nodes.nodes, func(l *link) bool { return !needsSomebody(l.State().Cause) }) {
			t.discovery.pause = 0
		} else {
			t.discovery.pause = min(max(2*t.discovery.pause, heartbeat), slowRefused)
			t.discovery.after = time.Now().Add(t.discovery.pause/2 + rand.N(t.discovery.pause))
		}
	}
	if len(answers) > 0 && ctx.Err() == nil {
		t.apply(answers)
	}
	t.notifyState()
}

// askNode asks one node for its view of the cluster. The validities of a node that no longer serves its slots lapse.
func (t *topology) askNode(ctx context.Context, l *link, addr string) (v nodeView, err error) {
	s := l.session.Load()
	if s == nil {
		// Its connection may be sound, but no caller uses it: it may have been replaced without this process noticing.
		l.lapseInUse()
		return nodeView{}, ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	sent := time.Now()
	cmds := rueidis.Commands{s.client.B().ClusterNodes().Build(), s.client.B().Exists().Key(l.ownName(probeName)).Build()}
	if t.discovery.renamed.Load() {
		cmds = append(cmds, s.client.B().ClusterSlots().Build())
	}
	answers := s.client.DoMulti(ctx, cmds...)
	if ctx.Err() == nil {
		l.note(ctx, s, min(time.Since(sent), l.grace.now()), 0, answers[1:2]) // a slow answer is no failure, and does not count as a fast one either
	}
	if c := code(answers[1].Error()); c == "CLUSTERDOWN" || c == "MOVED" {
		l.lapseInUse()
	}
	text, err := answers[0].ToString()
	if err != nil {
		return nodeView{}, err
	}
	var wanted endpoints
	if len(answers) > 2 {
		if err := answers[2].Error(); err != nil {
			return nodeView{}, err // without these addresses, known nodes would be taken for new ones
		}
		wanted = parseEndpoints(answers[2], addr)
	}
	return parseNodeViewWith(text, addr, t.options.TLSConfig != nil, wanted)
}

// awaitRefresh waits for a refresh that began after the call.
func (t *topology) awaitRefresh(ctx context.Context) error {
	asked := make(chan struct{})
	select {
	case t.refreshes <- asked:
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

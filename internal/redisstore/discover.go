package redisstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// nextAddress is how long one address is tried alone. An address that swallows packets takes seconds to give up. A healthy server
// has answered the first request by then.
const nextAddress = firstWait / 4

// A discovery is the state of the search for the nodes of a cluster. The background goroutine owns it, but for renamed.
type discovery struct {
	known   []string    // addresses of all nodes, those without slots included
	renamed atomic.Bool // nodes are to be reached by other addresses than those in CLUSTER NODES

	// While every node rejects us, other addresses are tried less and less often.
	after time.Time
	pause time.Duration
}

// discover asks servers about the cluster, until one answers. It returns that server's address, and no views if the server is not
// part of a cluster. Servers are asked one after the other, the next one when one has failed or takes long.
func (t *topology) discover(ctx context.Context, addrs []string) (at string, views []nodeView, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the attempts without an answer
	type answer struct {
		number int
		views  []nodeView
		err    error
	}
	answers := make(chan answer, len(addrs))
	begun, over := 0, 0
	begin := func() {
		number := begun
		begun++
		t.closing.Go(func() {
			views, err := t.discoverAt(ctx, addrs[number])
			answers <- answer{number, views, err}
		})
	}
	errs := make([]error, len(addrs))
	for over < len(addrs) {
		if begun == over {
			begin()
		}
		next := time.NewTimer(nextAddress)
		select {
		case a := <-answers:
			if a.err == nil {
				next.Stop()
				return addrs[a.number], a.views, nil
			}
			over++
			errs[a.number] = a.err
			if ctx.Err() != nil {
				next.Stop()
				return "", nil, a.err
			}
		case <-next.C:
			if begun < len(addrs) {
				begin()
			}
		}
		next.Stop()
	}
	if len(errs) > 0 {
		err = errs[len(errs)-1]
	}
	return "", nil, err
}

// discoverAt asks one server. Each of its steps counts as progress of the first attempt to find servers.
func (t *topology) discoverAt(ctx context.Context, at string) ([]nodeView, error) {
	opt := withDefaults(t.options)
	opt.ForceSingleClient, opt.DisableCache, opt.InitAddress = true, true, []string{at}
	var text string
	var none error
	var wanted endpoints
	l := &link{connector: connector{hanging: &t.hanging}, first: t.firsts.found}
	l.onConnect = func(ctx context.Context, asked rueidis.Client) (err error) {
		text, err = asked.Do(ctx, asked.B().ClusterNodes().Build()).ToString()
		if err == nil {
			wanted = parseEndpoints(asked.Do(ctx, asked.B().ClusterSlots().Build()), at)
		}
		// The server does not know the command, or its cluster mode is off. Or it does not permit the command, which matters if it
		// is part of a cluster.
		if c := code(err); c != "" && classOf(err) == answer || c == "NOPERM" && !isNode(ctx, asked) {
			none, err = err, nil
		}
		return err
	}
	l.untracked.Store(true)
	s, err := l.try(ctx, opt, purpose{})
	if err != nil {
		return nil, err
	}
	s.client.Close()
	if none != nil {
		return nil, nil
	}
	v, err := parseNodeView(text, at, opt.TLSConfig != nil)
	if err == nil && wanted.differ(v) {
		t.discovery.renamed.Store(true)
		v, err = parseNodeViewWith(text, at, opt.TLSConfig != nil, wanted)
	}
	switch {
	case err != nil:
		return nil, err
	case !v.knowsSlots():
		return nil, errNoNode // it does not know the other nodes yet, or has forgotten them
	}
	return []nodeView{v}, nil
}

// isNode reports whether a server that does not permit CLUSTER commands is part of a cluster. The reply to HELLO says so.
func isNode(ctx context.Context, c rueidis.Client) bool {
	hello, err := c.Do(ctx, c.B().Arbitrary("HELLO").Build()).AsMap()
	if err != nil {
		return false
	}
	mode := hello["mode"]
	text, _ := mode.ToString()
	return text == "cluster"
}

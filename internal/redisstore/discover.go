package redisstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// nextAddress is how long one address is waited for alone. Where it swallows what it is sent, it takes seconds to give up; one that is
// well has answered the first call by then.
const nextAddress = firstWait / 4

// A discovery is what finding the nodes of a cluster has brought so far. It belongs to the background goroutine, but for renamed.
type discovery struct {
	known   []string    // addresses of all nodes, those without slots included
	renamed atomic.Bool // nodes want to be reached by other addresses than those that they have among themselves

	// Where no node lets us in, other servers are asked less and less often.
	after time.Time
	pause time.Duration
}

// scout asks servers about the cluster, until one answers. Its address is returned, and no views if it is part of none. They are asked
// one after the other, the next one when one has failed or takes long.
func (t *topology) discover(ctx context.Context, addrs []string) (at string, views []nodeView, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of those that have not answered
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

// scoutAt asks one server. Each step of that is one of the first attempt to find servers.
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
		// It does not know the command, or has switched its cluster off. Or it does not let us ask, which matters where there is a
		// cluster.
		if c := code(err); c != "" && classOf(err) == answer || c == "NOPERM" && !isNode(ctx, asked) {
			none, err = err, nil
		}
		return err
	}
	l.untracked.Store(true)
	s, err := l.try(ctx, opt, false)
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
		return nil, errNoNode // it has not been told of the others, or has forgotten them
	}
	return []nodeView{v}, nil
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

package redisstore

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// A batch is commands, each for one name. They are sent to the nodes of their names: to each node in one round trip, to all nodes
// at the same time.
type batch struct {
	names []string
	plain func(c rueidis.Client, i int) rueidis.Completed
	// reads, unless nil, are what is sent in place of plain: tracked reads. Those that are sent with ASKING, to a node that is only about
	// to get the name, are not tracked.
	reads *reads
	// readBack, unless nil, builds the tracked read that command i is, or reports that it is none. A tracked read stands behind another command:
	// the first one of a pipeline is not tracked.
	readBack   func(to *session, i int) (cmd rueidis.Cacheable, ok bool)
	most       int           // most commands that are sent to a node at once; pipeline unless set
	bulk       bool          // use the second client: for large values, and for scans of many keys, which the server is not to track
	inPortions bool          // see portion
	worked     *atomic.Int64 // unless nil, grows by the time that servers work on portions
	// stays, unless nil, reports that a command is not sent to another node when its own node has redirected it.
	stays func(i int) bool
	// answered, unless nil, is called with each answer and its link. Calls for different commands may be concurrent.
	answered func(l *link, sent time.Time, i int, r rueidis.RedisResult)
}

// only is the batch of those commands of b whose indices are given.
func (b batch) only(of []int) batch {
	some := b
	some.names = make([]string, len(of))
	for j, i := range of {
		some.names[j] = b.names[i]
	}
	some.plain = func(c rueidis.Client, j int) rueidis.Completed { return b.plain(c, of[j]) }
	if b.stays != nil {
		some.stays = func(j int) bool { return b.stays(of[j]) }
	}
	if b.readBack != nil {
		some.readBack = func(to *session, j int) (rueidis.Cacheable, bool) { return b.readBack(to, of[j]) }
	}
	if b.answered != nil {
		some.answered = func(l *link, sent time.Time, j int, r rueidis.RedisResult) { b.answered(l, sent, of[j], r) }
	}
	return some
}

// pipeline is how many commands are sent at once. More would delay other users of the connection, and the answer by which the
// connection itself is found to be alive.
const pipeline = 1000

// mostRedirects bounds how often a command is redirected. A slot moves once, as a rule.
const mostRedirects = 2

// each sends commands, or none under a context that has ended: rueidis may have to reconnect, would do so under that context, and
// other callers that wait for the same connection would share the failure.
func (s *Store) each(ctx context.Context, b batch) []rueidis.RedisResult {
	t := s.table.Load()
	if only := t.only(); only != nil {
		return s.send(ctx, only, &b, nil, false)
	}
	return s.eachNode(ctx, t, b)
}

// eachNode is each for several nodes.
func (s *Store) eachNode(ctx context.Context, t *table, b batch) []rueidis.RedisResult {
	results := make([]rueidis.RedisResult, len(b.names))
	groups := make(map[destination][]int)
	for i, name := range b.names {
		if l := t.of(name); l != nil {
			groups[destination{link: l}] = append(groups[destination{link: l}], i)
		} else {
			results[i] = rueidis.NewErrorResult(ErrUnavailable)
		}
	}
	for redirects := 0; ; redirects++ {
		s.sendAll(ctx, groups, &b, results)
		if groups = s.redirected(&b, results); len(groups) == 0 || redirects == mostRedirects {
			return results
		}
	}
}

// A destination is a node, and whether commands for it need ASKING: it is about to get the slot, and another node has redirected
// us.
type destination struct {
	link   *link
	asking bool
}

// sendAll sends to all destinations at the same time.
func (s *Store) sendAll(ctx context.Context, groups map[destination][]int, b *batch, results []rueidis.RedisResult) {
	one := func(to destination, of []int) {
		for j, r := range s.send(ctx, to.link, b, of, to.asking) {
			results[of[j]] = r
		}
	}
	var others sync.WaitGroup
	n := 0
	for to, of := range groups {
		if n++; n == len(groups) {
			one(to, of)
		} else {
			others.Go(func() { one(to, of) })
		}
	}
	others.Wait()
}

// redirected returns the commands that a node has redirected, by their new destinations.
func (s *Store) redirected(b *batch, results []rueidis.RedisResult) map[destination][]int {
	t := s.table.Load()
	var groups map[destination][]int
	for i, r := range results {
		e, ok := rueidis.IsRedisErr(r.Error())
		if !ok {
			continue
		}
		addr, moved := e.IsMoved()
		asking := false
		if !moved {
			if addr, asking = e.IsAsk(); !asking {
				continue
			}
		}
		if moved {
			signal(s.outdated) // the table is out of date
		}
		if b.stays != nil && b.stays(i) {
			continue
		}
		if l := t.redirectTarget(addr); l != nil {
			if groups == nil {
				groups = make(map[destination][]int)
			}
			to := destination{l, asking}
			groups[to] = append(groups[to], i)
		}
	}
	return groups
}

// send sends to one node those commands of b whose indices are given, all for nil.
func (s *Store) send(ctx context.Context, l *link, b *batch, of []int, asking bool) []rueidis.RedisResult {
	if l == nil {
		return unsent(make([]rueidis.RedisResult, 0, len(b.names)), len(b.names), ErrUnavailable)
	}
	n, at := len(b.names), func(j int) int { return j }
	if of != nil {
		n, at = len(of), func(j int) int { return of[j] }
	}
	most := b.most
	if most == 0 {
		most = pipeline
	}
	if asking {
		most = min(most, pipeline/4) // ASKING doubles the commands, and rueidis sends very many of them by a connection of their own
	}
	var results []rueidis.RedisResult
	for len(results) < n {
		from, to := len(results), min(n, len(results)+most)
		var now *session
		var answers []rueidis.RedisResult
		var sent time.Time
		var size int64
		var by *session
		var worked time.Duration
		next := func(ctx context.Context) error {
			if now = l.session.Load(); now == nil {
				return ErrUnavailable
			}
			by = now
			if b.bulk {
				by = now.inBulk()
			}
			if err := l.place(ctx, now, by); err != nil {
				return err
			}
			sent = time.Now()
			worked = -1
			switch {
			case asking:
				answers, size = sendAsking(ctx, by.client, from, to, func(c rueidis.Client, j int) rueidis.Completed {
					if b.reads != nil {
						return b.reads.untracked(c.B(), at(j))
					}
					return b.plain(c, at(j))
				})
			case b.reads != nil:
				answers = sendTracked(ctx, now, from, to, func(j int) rueidis.Cacheable { return b.reads.build(now, at(j)) })
			case b.readBack != nil && now.tracked:
				answers, size = sendPlain(ctx, by.client, from, to, func(c rueidis.Client, j int) rueidis.Completed {
					if j > from {
						if cmd, ok := b.readBack(now, at(j)); ok {
							return rueidis.Completed(cmd)
						}
					}
					return b.plain(c, at(j))
				})
			case b.inPortions:
				answers, size, worked = sendTimed(ctx, by.client, from, to, func(c rueidis.Client, j int) rueidis.Completed { return b.plain(c, at(j)) })
			default:
				answers, size = sendPlain(ctx, by.client, from, to, func(c rueidis.Client, j int) rueidis.Completed { return b.plain(c, at(j)) })
			}
			by.places.give(answers)
			return nil
		}
		err := ctx.Err()
		switch {
		case err != nil:
			if l.session.Load() == nil {
				err = ErrUnavailable // the context ended while the caller waited for a connection
			}
		case b.inPortions:
			err = l.portion(ctx, func(ctx context.Context) (time.Duration, error) {
				err := next(ctx)
				return worked, err
			})
			if b.worked != nil {
				b.worked.Add(max(0, int64(worked)))
			}
		default:
			if err = next(ctx); err == nil {
				took := time.Since(sent)
				if by != now {
					took = inBulk
				}
				l.note(ctx, now, took, size, answers)
			}
		}
		if err != nil && answers == nil {
			return unsent(results, n, err)
		}
		for j, r := range answers {
			if b.reads != nil {
				b.reads.answered(l, at(from+j))
			}
			if b.answered != nil {
				b.answered(l, sent, at(from+j), r)
			}
		}
		if results == nil {
			results = answers
		} else {
			results = append(results, answers...)
		}
	}
	return results
}

func unsent(results []rueidis.RedisResult, n int, err error) []rueidis.RedisResult {
	for len(results) < n {
		results = append(results, rueidis.NewErrorResult(err))
	}
	return results
}

// onEach sends one command to each node that has slots, and returns the errors.
func (s *Store) onEach(ctx context.Context, slow bool, build func(c rueidis.Client, l *link) rueidis.Completed) []error {
	t := s.table.Load()
	if len(t.nodes) == 0 {
		return []error{ErrUnavailable}
	}
	errs := make([]error, len(t.nodes))
	var all sync.WaitGroup
	for i, l := range t.nodes {
		if l.hasNoSlots() {
			continue
		}
		all.Go(func() {
			errs[i] = firstError(s.send(ctx, l, &batch{
				names: make([]string, 1), inPortions: slow, bulk: slow,
				plain: func(c rueidis.Client, _ int) rueidis.Completed { return build(c, l) },
			}, nil, false))
		})
	}
	all.Wait()
	return errs
}

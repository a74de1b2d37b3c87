package redisstore

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// A batch is commands, each for one name. They are sent to the nodes of their names: to each node in one round trip, to all nodes
// at the same time.
type batch struct {
	content
	most       int           // most commands that are sent to a node at once; pipeline unless set
	bulk       bool          // use the second client: for large values, and for scans of many keys, which the server is not to track
	inPortions bool          // see portion
	worked     *atomic.Int64 // unless nil, grows by the time that servers work on portions
	times      bool          // note the servers' times: see noteTime
}

// stays reports that a command is not sent to another node when its own node has redirected it: where times are noted, a plain command's time is
// that of its node.
func (b *batch) stays(i int) bool {
	k := b.call(i)
	return b.times && k != nil && k.script.command != nil
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
	results := make([]rueidis.RedisResult, b.len())
	groups := make(map[destination][]int)
	for i := range results {
		if l := t.of(b.name(i)); l != nil {
			groups[destination{link: l}] = append(groups[destination{link: l}], i)
		}
		results[i] = rueidis.NewErrorResult(ErrUnavailable) // until there is an answer: the program's Observer may end the goroutine that waits for it
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
		if b.stays(i) {
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
		return unsent(make([]rueidis.RedisResult, 0, b.len()), b.len(), ErrUnavailable)
	}
	n, at := b.len(), func(j int) int { return j }
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
		next := func(limited context.Context) error {
			if now = l.session.Load(); now == nil {
				return ErrUnavailable
			}
			by = now
			if b.bulk {
				by = now.inBulk()
			}
			if err := l.place(limited, now, by); err != nil {
				return err
			}
			build := func(c rueidis.Client, j int) rueidis.Completed { return b.build(c, at(j)) }
			if s.trips.Observer != nil {
				_, op := s.trips.Observer.Begin(ctx, tripOp(l, by.client, b, from, to, at))
				defer func() { op.End(endOfTrip(answers)) }()
			}
			sent = time.Now()
			worked = -1
			switch {
			case asking:
				answers, size = sendAsking(limited, by.client, from, to, build)
			case b.onlyReads():
				answers = sendTracked(limited, now, !now.tracked || l.options.PipelineMultiplex > 0, b.reads, from, to, at)
			case b.reads != nil && now.tracked:
				answers, size = sendPlain(limited, by.client, from, to, func(c rueidis.Client, j int) rueidis.Completed {
					if read, ok := b.read(at(j)); ok && j > from {
						return rueidis.Completed(b.reads.build(now, read))
					}
					return build(c, j)
				})
			case b.inPortions:
				answers, size, worked = sendTimed(limited, by.client, from, to, build)
			default:
				answers, size = sendPlain(limited, by.client, from, to, build)
			}
			s.noteTrip(ctx, b.purpose(), time.Since(sent), answers)
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
			if read, ok := b.read(at(from + j)); ok {
				b.reads.answered(l, read)
			}
			if k := b.call(at(from + j)); b.times && k != nil {
				noteTime(k.script, l, sent, r)
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

// noteTrip counts a round trip that Redis has answered, if only with errors, or that has taken all the time that it may take. A broken connection
// and a caller that has gone, whose ctx has ended, say nothing about how long a round trip takes.
func (s *Store) noteTrip(ctx context.Context, of stats.Trip, took time.Duration, answers []rueidis.RedisResult) {
	for _, r := range answers {
		if err := r.Error(); classOf(err) != failure || IsTimeout(err) && !CallersOwn(ctx) {
			s.trips.Counts.Observe(of, took)
			return
		}
	}
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
		errs[i] = ErrUnavailable // as above
		all.Go(func() {
			errs[i] = firstError(s.send(ctx, l, &batch{
				content: content{names: make([]string, 1), plain: func(c rueidis.Client, _ int) rueidis.Completed { return build(c, l) }},
				bulk:    slow, inPortions: slow,
			}, nil, false))
		})
	}
	all.Wait()
	return errs
}

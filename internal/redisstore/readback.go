package redisstore

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// A server pushes changes of what a client has read, and not of what it has written. So a value that is to be kept in memory is read back behind
// its fill, in the same round trip:
//
//  1. The script stores the value. The server pushes that to this process too, if it has read the key before.
//  2. The push comes behind the reply to the script, or before it, and in any case before the next reply.
//  3. GETRANGE reads the head of the value. Its reply arms the fence, which the push of step 1 can no longer break.
//
// The head shows whether the server still has the value then. Another change, between the two commands or later, is in the head, or breaks the
// fence.
//
// rueidis passes a tracked read to the CacheStore in a pipeline of plain commands too, but for the first command of the pipeline.

// runAndRead runs calls and, behind each of them, reads what is looked for.
func (s *Store) runAndRead(ctx context.Context, calls []call, looks []Get) (results []rueidis.RedisResult, reads []Read) {
	switch {
	case len(looks) == 0:
		return s.run(ctx, calls), make([]Read, len(calls))
	case s.options.PipelineMultiplex > 0: // the push may come by another connection, at any time
		return s.run(ctx, calls), s.Get(ctx, looks...)
	}
	g := s.newReads(looks)
	both := make([]call, 0, 2*len(calls))
	for i, k := range calls {
		back := &script{repeatable: true, command: func(b rueidis.Builder, _, _ []string) rueidis.Completed { return g.untracked(b, i) }}
		both = append(both, k, call{back, g.names[i : i+1], nil})
	}
	answers := s.runAs(ctx, both, batch{
		readBack: func(to *session, i int) (cmd rueidis.Cacheable, ok bool) {
			if i%2 == 0 {
				return cmd, false
			}
			return g.build(to, i/2), true
		},
		answered: func(l *link, _ time.Time, i int, _ rueidis.RedisResult) {
			if i%2 == 1 {
				g.answered(l, i/2)
			}
		},
	})
	heads := make([]rueidis.RedisResult, len(calls))
	for i := range calls {
		answers[i], heads[i] = answers[2*i], answers[2*i+1]
	}
	return answers[:len(calls)], g.end(heads)
}

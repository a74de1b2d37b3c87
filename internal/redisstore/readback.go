package redisstore

import (
	"context"

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
		return s.run(ctx, calls), nil
	case s.options.PipelineMultiplex > 0: // the push may come by another connection, at any time
		return s.run(ctx, calls), s.Get(ctx, looks...)
	}
	g := s.newReads(looks)
	answers := s.runAs(ctx, batch{content: content{calls: calls, reads: g}})
	for i := range calls {
		g.end(i, answers[2*i+1])
		answers[i] = answers[2*i]
	}
	return answers[:len(calls)], g.out
}

package redisstore

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// sendPlain sends commands, and also returns how many bytes were sent.
func sendPlain(ctx context.Context, c rueidis.Client, from, to int, build func(rueidis.Client, int) rueidis.Completed) (answers []rueidis.RedisResult, size int64) {
	if to-from == 1 {
		cmd := build(c, from)
		size = sizeOf(cmd)
		return []rueidis.RedisResult{c.Do(ctx, cmd)}, size
	}
	cmds := make(rueidis.Commands, to-from)
	for i := range cmds {
		cmds[i] = build(c, from+i)
		size += sizeOf(cmds[i])
	}
	return c.DoMulti(ctx, cmds...), size
}

// sendTimed is sendPlain between two questions for the time. It also returns how long the server has worked on the commands, or a negative
// time where the server has not answered one of the questions.
func sendTimed(ctx context.Context, c rueidis.Client, from, to int, build func(rueidis.Client, int) rueidis.Completed) (answers []rueidis.RedisResult, size int64, worked time.Duration) {
	n := to - from
	answers, size = sendPlain(ctx, c, 0, n+2, func(c rueidis.Client, i int) rueidis.Completed {
		if i == 0 || i == n+1 {
			return c.B().Time().Build()
		}
		return build(c, from+i-1)
	})
	worked = -1
	began, err := parseTime(answers[0])
	if err == nil {
		var ended int64
		if ended, err = parseTime(answers[n+1]); err == nil {
			worked = time.Duration(ended-began) * time.Microsecond
		}
	}
	return answers[1 : n+1], size, worked
}

// sizeOf is how many bytes a command has. rueidis recycles a command once it is sent, so this comes before.
func sizeOf(cmd rueidis.Completed) (size int64) {
	for _, arg := range cmd.Commands() {
		size += int64(len(arg))
	}
	return size
}

// sendTracked sends those reads of g whose indices are at(from) to at(to-1). rueidis sends an ECHO before each tracked read. It passes tracked reads to
// the CacheStore in a pipeline of plain commands too, but for the first command: so one ECHO does for all of them. ToPipe keeps a long pipeline on the
// connection that carries the pushes. Of several connections rueidis chooses that of each key only where it sends the ECHOs itself; where nothing is
// tracked, it must not pass the reads on.
func sendTracked(ctx context.Context, s *session, several bool, g *reads, from, to int, at func(int) int) []rueidis.RedisResult {
	if to-from == 1 {
		answer := s.client.DoCache(ctx, g.build(s, at(from)), time.Hour)
		if len(g.names) > 1 {
			return []rueidis.RedisResult{answer}
		}
		g.alone.reply[0] = answer
		return g.alone.reply[:]
	}
	if several {
		cmds := make([]rueidis.CacheableTTL, to-from)
		for i := range cmds {
			cmds[i] = rueidis.CT(g.build(s, at(from+i)), time.Hour)
		}
		return s.client.DoMultiCache(ctx, cmds...)
	}
	cmds := make(rueidis.Commands, to-from+1)
	cmds[0] = s.client.B().Echo().Message("").Build().ToPipe()
	for i := range cmds[1:] {
		cmds[i+1] = rueidis.Completed(g.build(s, at(from+i)))
	}
	return s.client.DoMulti(ctx, cmds...)[1:]
}

// sendAsking is sendPlain to a node that does not have the slot yet. Each ASKING is for the one command behind it.
func sendAsking(ctx context.Context, c rueidis.Client, from, to int, build func(rueidis.Client, int) rueidis.Completed) (results []rueidis.RedisResult, size int64) {
	cmds := make(rueidis.Commands, 0, 2*(to-from))
	for i := from; i < to; i++ {
		cmd := build(c, i)
		size += sizeOf(cmd)
		cmds = append(cmds, c.B().Asking().Build(), cmd)
	}
	answers := c.DoMulti(ctx, cmds...)
	results = make([]rueidis.RedisResult, 0, to-from)
	for i := 1; i < len(answers); i += 2 {
		results = append(results, answers[i])
	}
	return results, size
}

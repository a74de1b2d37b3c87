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

// sizeOf is how many bytes a command has. rueidis recycles a command once it is sent, so this comes before.
func sizeOf(cmd rueidis.Completed) (size int64) {
	for _, arg := range cmd.Commands() {
		size += int64(len(arg))
	}
	return size
}

func sendTracked(ctx context.Context, s *session, from, to int, build func(int) rueidis.Cacheable) []rueidis.RedisResult {
	if to-from == 1 {
		return []rueidis.RedisResult{s.client.DoCache(ctx, build(from), time.Hour)}
	}
	cmds := make([]rueidis.CacheableTTL, to-from)
	for i := range cmds {
		cmds[i] = rueidis.CT(build(from+i), time.Hour)
	}
	return s.client.DoMultiCache(ctx, cmds...)
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

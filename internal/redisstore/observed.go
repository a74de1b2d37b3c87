package redisstore

import (
	"errors"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/observe"
)

// tripOp describes a round trip with those commands of b whose indices are at(from) to at(to-1).
func tripOp(l *link, c rueidis.Client, b *batch, from, to int, at func(int) int) observe.Op {
	command := b.command(c, at(from))
	for j := from + 1; j < to; j++ {
		if b.command(c, at(j)) != command {
			command = ""
			break
		}
	}
	switch {
	case to-from == 1:
	case command == "":
		command = "PIPELINE"
	default:
		command = "PIPELINE " + command
	}
	return observe.Op{Kind: observe.Redis, Key: b.name(at(from)), Keys: to - from, Node: l.addr(), Command: command}
}

// command is the name of command i, without its arguments.
func (c *content) command(client rueidis.Client, i int) string {
	if _, ok := c.read(i); ok {
		return "GETRANGE"
	}
	if k := c.call(i); k != nil && k.script.command == nil {
		if c.inFull {
			return "EVAL"
		}
		return "EVALSHA"
	}
	built := c.build(client, i) // to see its name: it is not sent
	return built.Commands()[0]
}

// errUnanswered is the error of a round trip that has ended without an answer.
var errUnanswered = errors.New("redis has not answered")

// endOfTrip is the end of a round trip: with its first error. That a key is missing is none.
func endOfTrip(answers []rueidis.RedisResult) (end observe.End) {
	if answers == nil {
		end.Err = errUnanswered
	}
	for _, r := range answers {
		if err := r.Error(); err != nil && !rueidis.IsRedisNil(err) {
			return observe.End{Err: err}
		}
	}
	return end
}

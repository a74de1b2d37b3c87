package redisstore

import (
	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// A content is the commands of a batch: plain ones with their names, or calls, or tracked reads. Where there are calls and reads, a read follows
// each call.
type content struct {
	names  []string
	plain  func(c rueidis.Client, i int) rueidis.Completed
	trip   stats.Trip // what plain commands are for
	calls  []call
	inFull bool   // the calls are sent with the text of their scripts
	reads  *reads // those that are sent with ASKING, to a node that is only about to get the name, are not tracked
	some   []int  // unless nil, only the commands with these indices
}

// only is the content with those commands alone whose indices are given.
func (c content) only(some []int) content {
	c.some = some
	return c
}

func (c *content) at(i int) int {
	if c.some != nil {
		return c.some[i]
	}
	return i
}

func (c *content) len() int {
	n := max(len(c.names), len(c.calls))
	switch {
	case c.some != nil:
		n = len(c.some)
	case c.reads != nil:
		n += len(c.reads.names)
	}
	return n
}

// purpose is what the commands are for. Of several calls the last one says so: the generations of tags are asked for before leases.
func (c *content) purpose() stats.Trip {
	switch {
	case len(c.calls) > 0:
		return c.calls[len(c.calls)-1].script.trip
	case c.reads != nil:
		return stats.Reading
	}
	return c.trip
}

// onlyReads reports whether all commands are tracked reads.
func (c *content) onlyReads() bool { return c.reads != nil && c.calls == nil }

// read reports whether command i is a read, and which one.
func (c *content) read(i int) (index int, ok bool) {
	switch i = c.at(i); {
	case c.reads == nil:
		return 0, false
	case c.calls == nil:
		return i, true
	}
	return i / 2, i%2 == 1
}

// call returns the call that command i is, nil if it is none.
func (c *content) call(i int) *call {
	switch i = c.at(i); {
	case c.calls == nil, c.reads != nil && i%2 == 1:
		return nil
	case c.reads != nil:
		i /= 2
	}
	return &c.calls[i]
}

func (c *content) name(i int) string {
	if k := c.call(i); k != nil {
		return k.keys[0]
	}
	if read, ok := c.read(i); ok {
		return c.reads.names[read]
	}
	return c.names[c.at(i)]
}

// build builds command i. A read is not tracked.
func (c *content) build(client rueidis.Client, i int) rueidis.Completed {
	if k := c.call(i); k != nil {
		return k.build(client.B(), c.inFull)
	}
	if read, ok := c.read(i); ok {
		return c.reads.untracked(client.B(), read)
	}
	return c.plain(client, c.at(i))
}

// repeatable reports whether command i has the same effect if it runs twice.
func (c *content) repeatable(i int) bool {
	k := c.call(i)
	return k == nil || k.script.repeatable
}

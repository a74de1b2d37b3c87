package redisstore

import (
	"context"
	"slices"
	"strconv"
	"time"
)

// A portion of a sweep has from leastSwept to mostSwept values, so many that a server works on it for about sweepTime. Its other clients wait
// for a portion, since a server reads a portion at once.
const (
	leastSwept = 8
	mostSwept  = 256
	sweepTime  = 500 * time.Microsecond
)

// One call of sweep has so many values and so many tags at most. More would not make a value cheaper. A single value may have more tags.
const (
	mostInCall    = 64
	mostSweptTags = 64
)

// Sweep removes those values that carry an older generation of a tag than the list names with one of its keys. It returns how many it has
// removed for each tag. It works in portions, each of which is larger or smaller by the time that the server says it has worked on the
// one before. The error is that of any key, but for keys that the user may not use. After an error some values are left, and some of
// those that are removed may not be counted, since their reply was lost: the caller repeats the sweep.
func (s *Store) Sweep(ctx context.Context, list ...Outdated) (removed map[string]int64, err error) {
	removed = make(map[string]int64)
	for left := s.inGroups(list); len(left) > 0 && err == nil; {
		left, err = s.sweepPortion(ctx, left, removed)
	}
	return removed, err
}

// sweepPortion looks at some of the values in groups, counts those that it removes, and returns the groups of those that are left.
func (s *Store) sweepPortion(ctx context.Context, groups []sweptGroup, removed map[string]int64) (left []sweptGroup, err error) {
	l := s.table.Load().of(groups[0].names[0])
	if l == nil {
		return nil, ErrUnavailable
	}
	size := max(leastSwept, int(l.sweepSize.Load()))
	portion, left := cut(groups, size)
	calls := make([]call, len(portion))
	for i, g := range portion {
		calls[i] = call{sweep, g.names, slices.Concat(s.format.args, s.format.tags)}
		for _, tag := range g.tags {
			calls[i].args = append(calls[i].args, tag.Tag, strconv.FormatUint(tag.Value, 10))
		}
	}
	results, worked := s.runInPortions(ctx, calls, mostSwept)
	seen := 0
	for i, r := range results {
		g := portion[i]
		n := len(g.names)
		reply, e := r.AsIntSlice()
		switch {
		case e == nil:
			seen += int(reply[0])
			for counts := reply[1:]; len(counts) > 0; counts = counts[2:] {
				removed[g.tags[counts[0]].Tag] += counts[1]
			}
			if int(reply[0]) < n {
				left = append(left, g.part(int(reply[0]), n))
			}
		case n > 1 && isOfSome(e):
			if code(e) == "CROSSSLOT" {
				l.slotted.Store(true)
			}
			left = append(left, g.part(0, n/2), g.part(n/2, n))
		case !denied(e):
			err = e
		}
	}
	l.sweepSize.Store(int32(nextSweepSize(size, seen, worked)))
	return left, err
}

// isOfSome reports whether a call was refused for some of its keys: the user may not use them, or they are of another slot than the rest, or
// their slot is moving and they are at another node than the rest.
func isOfSome(err error) bool { return denied(err) || code(err) == "CROSSSLOT" || isSplit(err) }

// nextSweepSize is how many values a portion has after one of size values, of which the server has seen some in the time that it has worked.
func nextSweepSize(size, seen int, worked time.Duration) int {
	next := 2 * size
	if worked > 0 {
		next = min(next, int(time.Duration(seen)*sweepTime/worked))
	}
	return min(max(next, leastSwept), mostSwept)
}

// A sweptGroup is values that one call of sweep looks at, by their names in Redis. Those of a cluster are of one slot.
type sweptGroup struct {
	names []string
	tags  []Current
}

// part is the group of the values from one number up to another.
func (g sweptGroup) part(from, to int) sweptGroup { return sweptGroup{g.names[from:to], g.tags} }

// SweepTogether is how many values Sweep is to be given at a time, if there are as many. A call takes the values of one slot of a cluster only,
// and a page of a scan has hardly two of the same slot.
func (s *Store) SweepTogether() int {
	if s.oneSlot() {
		return 1
	}
	return 32 << 10
}

// oneSlot reports whether a call can have any keys: there is one server, and no cluster looks like one.
func (s *Store) oneSlot() bool {
	only := s.table.Load().only()
	return only != nil && !only.slotted.Load()
}

// inGroups divides values into groups.
func (s *Store) inGroups(list []Outdated) (groups []sweptGroup) {
	oneSlot := s.oneSlot()
	open := make(map[uint16]int) // the number of the last group of each slot
	for _, o := range list {
		name, slot := s.namespace.name(o.Key), uint16(0)
		if !oneSlot {
			slot = slotOf(name)
		}
		i, ok := open[slot]
		if !ok || !groups[i].hasRoom(o.Tags) {
			i = len(groups)
			open[slot], groups = i, append(groups, sweptGroup{})
		}
		groups[i].add(name, o.Tags)
	}
	return groups
}

// hasRoom reports whether one more value, and its tags, fit into the group.
func (g *sweptGroup) hasRoom(tags []Current) bool {
	n := len(g.tags)
	for _, tag := range tags {
		if !slices.Contains(g.tags, tag) {
			n++
		}
	}
	return len(g.names) < mostInCall && n <= mostSweptTags
}

func (g *sweptGroup) add(name string, tags []Current) {
	g.names = append(g.names, name)
	for _, tag := range tags {
		if !slices.Contains(g.tags, tag) {
			g.tags = append(g.tags, tag)
		}
	}
}

// cut takes size values off groups.
func cut(groups []sweptGroup, size int) (portion, left []sweptGroup) {
	for len(groups) > 0 && size > 0 {
		g := groups[0]
		n := min(len(g.names), size)
		portion, size = append(portion, g.part(0, n)), size-n
		if n < len(g.names) {
			groups[0] = g.part(n, len(g.names))
		} else {
			groups = groups[1:]
		}
	}
	return portion, groups
}

package near

import "weak"

// generations are those of some tags. One that somebody holds, an entry or a load under way, is never forgotten: who
// invalidates its tag must find it, and to withdraw it for want of room would be to invalidate all that carries the tag. So
// what is noted here are weak pointers. One that nobody holds is of use too, since the tag need not be read again: of those,
// the newest few are held here.
type generations struct {
	byTag   map[string]weak.Pointer[Generation]
	held    []*Generation // a ring
	oldest  int           // of held, once it is full
	most    int           // how many are held
	pruneAt int           // how many tags there are when those are looked for that nobody holds any more
}

// find returns the generation of a tag, or nil where none is known: then nobody holds one.
func (t *generations) find(tag string) *Generation { return t.byTag[tag].Value() }

// note makes g the generation of a tag.
func (t *generations) note(tag string, g *Generation) {
	g.Voucher.of = g // an entry holds its voucher, and so g
	if len(t.held) < t.most {
		t.held = append(t.held, g)
	} else {
		t.held[t.oldest] = g
		t.oldest = (t.oldest + 1) % t.most
	}
	if t.byTag == nil || len(t.byTag) >= t.pruneAt {
		t.prune()
	}
	t.byTag[tag] = weak.Make(g)
}

// take is find, and the tag has none afterwards.
func (t *generations) take(tag string) *Generation {
	g := t.find(tag)
	delete(t.byTag, tag)
	return g
}

// prune drops the tags whose generation nobody holds any more, as far as the garbage collector has found out. It then waits
// until there are twice as many as are left, so that a tag costs the same however many there are.
func (t *generations) prune() {
	left := make(map[string]weak.Pointer[Generation]) // a map that was large once stays so
	for tag, g := range t.byTag {
		if g.Value() != nil {
			left[tag] = g
		}
	}
	t.byTag, t.pruneAt = left, 2*max(len(left), t.most)
}

//go:build !nostrategies

package main

import (
	"context"
	"math/rand/v2"
	"strconv"

	"github.com/gatewayz/aside"
)

// In a schedule with windows the source has ETags, the versions, and loaders answer that a value is not modified. The cached value is then kept
// with new times, while invalidations, Sets, faults and other processes race. A source knows nothing of invalidations. So one load in
// blindOneIn compares nothing, and answers so for each previous value, however old it is: the cache must know by itself what was invalidated.

// errNotModified is the error of such a loader.
var errNotModified = aside.ErrNotModified

// priors are the versions of previous values.
type priors map[int]uint32

// priorsOf asks for the previous values of keys, and notes them as reads: nobody may be given what was invalidated before the load began.
func (w *worker) priorsOf(ctx context.Context, keys keySet) priors {
	c, _ := ctx.Value(callerKey{}).(*caller)
	if c == nil {
		return nil
	}
	found := priors{}
	var records []byte
	keys.each(func(k int) {
		p, ok := aside.PreviousOf[value](ctx, groupOf(k).policy.Key(idOf(k)))
		if !ok {
			return
		}
		v, ok := p.Value()
		switch {
		case !ok || v.Key != k || len(v.Padding) != groupOf(k).padding:
			w.session.fail("the previous value of %s is one of %s (there is one: %v)", keyName(k), keyName(max(0, v.Key)), ok)
			return
		case p.ETag != "" && p.ETag != etagOf(v.Version):
			w.session.fail("the previous value of %s has version %d and ETag %q", keyName(k), v.Version, p.ETag)
		}
		found[k] = v.Version
		records = appendRead(records, &read{key: uint8(k), door: doorPrevious, call: c.began, ret: now(), version: v.Version})
	})
	if len(records) > 0 {
		w.session.send(frameRecords, records)
	}
	return found
}

func etagOf(version uint32) string { return strconv.FormatUint(uint64(version), 10) }

// answer decides for a loaded key whether its previous value is not modified, and tells the cache of its ETag and of the tags that its loader
// names. A value that is not modified has those tags already, so that its loader may name them or not.
func (p priors) answer(ctx context.Context, key int, version uint32, blind bool) (same bool) {
	prior, ok := p[key]
	same = ok && (blind || prior == version)
	if same {
		version = prior
	}
	l := aside.CurrentLoad(ctx).Of(groupOf(key).policy.Key(idOf(key)))
	if !same || rand.IntN(2) == 0 {
		l.ETag(etagOf(version))
		l.Tag(groupOf(key).late...)
	}
	return same
}

// requireETag complains if a Result has another ETag than its value. Values of Set have none.
func (w *worker) requireETag(r aside.Result[value], key int) {
	if w.Windows != nil && r.ETag != "" && r.ETag != etagOf(r.Value.Version) {
		w.session.fail("version %d of %s has ETag %q", r.Value.Version, keyName(key), r.ETag)
	}
}

// set stores the version that the source has, in a schedule in which nobody else changes the key: see worker.changing.
func (t *tape) set(key int) {
	g := groupOf(key)
	versions, err := t.w.source.ask(askRead, one(key))
	if err == nil {
		t.w.sets.Add(1)
		v := value{Key: key, Version: versions[0], Padding: padding[:g.padding]}
		err = aside.Set(context.Background(), t.w.cache, t.keys[key], v, aside.WithTags(append(g.late[:len(g.late):len(g.late)], g.tags...)...))
	}
	if err != nil {
		t.w.session.fail("Set of %s: %v", keyName(key), err)
	}
}

package invalidate

import (
	"context"
	"slices"
)

// A Change is what one write has changed: keys, with the tags of their policies, and tags, of which the sequence is the first one if the program has
// named some. The events are for the program's hook.
type Change struct {
	Keys, KeyTags, Tags []string
	OfTags              []Event
}

// Change is Remove and Retire together, in one round trip of a single server. It returns an error for each key too, or nil if none failed.
func (v *Invalidator) Change(ctx context.Context, caller string, c Change) (*Ticket, []error) {
	if len(c.Tags) == 0 {
		return v.Remove(ctx, caller, c.Keys, c.KeyTags)
	}
	removed := v.deleteHere(c.Keys)
	if v.store == nil {
		v.notify(caller, c.ofKeys()...)
		t := v.retireHere(caller, c.Tags, c.OfTags...)
		t.Removed, t.atOnce = removed, removed
		return t, nil
	}
	v.o.Tags.Retire(c.Tags)
	defer v.o.Tags.Retire(c.Tags)
	v.awaitServers(ctx, slices.Concat(c.Keys, c.KeyTags, c.Tags)...)
	before := v.o.Journal.Now(caller)
	budget, cancel := v.store.Budget(context.WithoutCancel(ctx), 0, len(c.Keys)+len(c.Tags))
	defer cancel()
	removed, errs, generations := v.o.Tags.Change(budget, c.Keys, c.Tags...)
	pending := v.settleKeys(ctx, caller, before, c.Keys, errs)
	if pending == nil {
		v.notify(caller, c.ofKeys()...)
	}
	t := v.settleTags(ctx, caller, before, c.Tags, generations, c.OfTags...)
	if pending == nil && !t.Confirmed {
		t.copied = v.copiedSince(true) // the keys are confirmed, and are not sent again before the tags are
	}
	t.wait(pending)
	t.Removed, t.atOnce = removed, removed
	return t, errs
}

func (c Change) ofKeys() []Event {
	if len(c.Keys) == 0 {
		return nil
	}
	return []Event{{Keys: c.Keys}}
}

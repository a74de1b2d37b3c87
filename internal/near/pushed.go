package near

import (
	"time"

	"github.com/maypok86/otter/v2"
)

// Redis notifies this process of every change of a key, also where only the head of a large value was written. The value in memory must not be
// served any more. But this process is likely to read the key again, and would then fetch and decode 20 MB that it has had all the time. So the
// decoded value stays in memory for a while, out of reach of all calls. Once the new head has been read, and names the same payload, the value is
// used again: see Pushed.

// keptPushed is for how long such a value stays.
const keptPushed = 10 * time.Second

// withdrawn is the scope of values that are not served any more.
var withdrawn = &Scope{Validities: []*Validity{revokedValidity()}}

func revokedValidity() *Validity {
	v := new(Validity)
	v.ended.Store(revoked)
	return v
}

// afterPush returns what takes the place of an entry whose key was changed in Redis: nothing, or its value for Pushed.
func (c *Cache) afterPush(there *Entry) (*Entry, otter.ComputeOp) {
	if there == nil || there.Plan == nil || there.Plan.Payload == [12]byte{} || there.Plan.pushedUntil != 0 {
		return nil, otter.InvalidateOp
	}
	return c.write(&Entry{
		Value: there.Value, Scope: withdrawn, LoadedAt: there.LoadedAt, Size: there.Size,
		Plan: &Plan{Payload: there.Plan.Payload, pushedUntil: c.clock.Now() + int64(keptPushed)},
	})
}

// isPushed reports whether the entry is only there for Pushed.
func (c *Cache) isPushed(e *Entry) bool { return e.Plan != nil && c.clock.Before(e.Plan.pushedUntil) }

// Pushed returns the decoded value of a payload that was in memory when Redis notified this process of the last change of key, nil if it is not
// there any more. The caller has read in Redis that the key has this payload.
func (c *Cache) Pushed(key string, payload [12]byte) any {
	e, ok := c.store.GetIfPresent(key)
	if !ok || !c.isPushed(e) || e.Plan.Payload != payload {
		return nil
	}
	return e.Value
}

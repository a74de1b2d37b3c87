package tags

import (
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
)

// A Notice says how this process is notified of changes of one name, the key or a tag of a load. Redis notifies the connection that read the
// name. While Redis is unavailable there is no notification, and no other process can confirm an invalidation either. If neither is so,
// Redis can confirm an invalidation to another process, and this process is not notified. Then no value with that name may be kept or shared.
type Notice struct {
	Validity    *near.Validity // of that connection, also where the name was missing; nil where Redis does not notify
	Untrackable bool           // its server does not track it: its slot of a cluster changes hands, or the user may not read it
	answered    bool           // its server has said what it holds
	ups         uint64         // how often the connection to the name's server had come up before it was asked
}

// Notice returns the Notice of a name that was not read yet.
func (r *Registry) Notice(name string) Notice {
	if r.local() {
		return Notice{}
	}
	ups, _ := r.redis.contact(name)
	return Notice{ups: ups}
}

// Tracked reports whether Redis notifies this process of changes of the name.
func (n *Notice) Tracked() bool { return n.Validity != nil && n.Validity.Valid() }

// Answer notes the reply of the name's server.
func (n *Notice) Answer(read redisstore.Read) {
	n.Validity, n.answered, n.Untrackable = read.Validity, read.Err == nil, read.Err != nil && redisstore.IsForbidden(read.Err)
}

// Unnotified reports whether the name's server has answered, and does not notify of changes: the slot of a missing name changes hands.
func (n *Notice) Unnotified() bool { return n.answered && n.Validity == nil }

// CutOff reports whether the server of the name is unavailable, and has been since before it was asked.
func (r *Registry) CutOff(name string, n *Notice) bool {
	ups, up := r.redis.contact(name)
	return !up && ups == n.ups
}

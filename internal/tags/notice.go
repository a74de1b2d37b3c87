package tags

import "github.com/gatewayz/aside/internal/near"

// A Notice is how this process hears of changes of one name, the key or a tag of a load: Redis notifies the connection that read the
// name, or, while Redis is away, nobody notifies. Where neither is so, Redis can confirm to another process an invalidation that nobody
// here is notified of. Then nothing may be kept or shared that rests on the name.
type Notice struct {
	Validity    *near.Validity // of that connection, also where the name was missing; nil where Redis does not notify
	Untrackable bool           // its server does not track it: its slot of a cluster changes hands, or the user may not read it
	ups         uint64         // how often the connection to the name's server had come up before it was asked
}

// Notice is that of a name that was not read yet.
func (r *Registry) Notice(name string) Notice {
	if r.local() {
		return Notice{}
	}
	ups, _ := r.redis.contact(name)
	return Notice{ups: ups}
}

// Tracked reports whether Redis notifies this process of changes of the name.
func (n *Notice) Tracked() bool { return n.Validity != nil && n.Validity.Valid() }

// CutOff reports whether the server of the name is away, and has been since before it was asked: it has answered nobody here then.
func (r *Registry) CutOff(name string, n *Notice) bool {
	ups, up := r.redis.contact(name)
	return !up && ups == n.ups
}

package near

// A Standing is whether Get may return an entry.
type Standing int

// The standings of an entry.
const (
	Current  Standing = iota // nothing is known against it
	Lapsed                   // it may be out of date: this process would not be notified
	Outdated                 // its data has changed
)

// Find returns the entry of key, whether or not it may be served, and its standing; nil if there is none. It is for a person who asks: it does not
// count as a use of the entry, which may long be dead.
func (c *Cache) Find(key string) (*Entry, Standing) {
	there, ok := c.store.GetEntryQuietly(key)
	if !ok || there.Value.Plan != nil && there.Value.Plan.pushedUntil != 0 { // the latter is out of reach of all calls: see Pushed
		return nil, Outdated
	}
	switch since, outdated := there.Value.lapsed(); {
	case outdated:
		return there.Value, Outdated
	case since != 0:
		return there.Value, Lapsed
	}
	return there.Value, Current
}

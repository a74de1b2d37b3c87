package flight

// A Ticket is a position in the order in which a group's calls begin. A caller that took a ticket may share the calls that begin later.
type Ticket uint64

// freshness is what JoinFresh needs to know of a call.
type freshness struct {
	began Ticket        // the call's number among the group's calls
	grade int           // see JoinFresh; guarded by group.mu
	ended chan struct{} // see JoinFresh; nil while no caller waits for it; guarded by group.mu
	left  chan struct{} // see Left; nil while no caller waits for it; guarded by group.mu
}

// Ticket returns the ticket of a caller that comes now. It is never zero.
func (g *Group[K, V]) Ticket() Ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Ticket(g.begun + 1)
}

// JoinFresh is Join for a caller that must not share a call that began before it took its ticket. Each call has a grade, which is zero
// for the calls of Join. The caller shares a call of its own grade or a higher one. Otherwise it leads a call of its grade.
//
// Many such callers at once would start as many loads. So JoinFresh makes a patient caller wait while a call runs that has the right
// grade and began before the ticket. It then returns neither a call nor the lead but a channel. The channel is closed when
// the running call has ended or cannot be joined any more. The first caller that returns leads the next call. That call begins after all
// their tickets, and the other callers share it. A caller that is not patient leads at once.
func (g *Group[K, V]) JoinFresh(key K, since Ticket, grade int, patient bool) (call *Call[K, V], lead bool, ended <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := g.calls[key]; ok {
		shared := c.grade >= grade && c.open()
		if shared && c.began < since && patient && !c.resolved {
			if c.ended == nil {
				c.ended = make(chan struct{})
			}
			return nil, false, c.ended
		}
		if !shared || c.began < since {
			g.forget(c)
		}
	}
	if call, lead = g.join(key); lead {
		call.grade = grade
	}
	return call, lead, nil
}

// Left returns a channel that is closed when the call that runs for key cannot be joined any more: it may have had its result before. The channel is
// nil if no call runs. After Close it may stay open.
func (g *Group[K, V]) Left(key K) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.calls[key]
	if !ok {
		return nil
	}
	if c.left == nil {
		c.left = make(chan struct{})
	}
	return c.left
}

// notifyLeft closes the channel that Left returned. It requires group.mu.
func (f *freshness) notifyLeft() {
	if f.left != nil {
		close(f.left)
		f.left = nil
	}
}

// notifyEnded closes the channel that JoinFresh returned. It requires group.mu.
func (f *freshness) notifyEnded() {
	if f.ended != nil {
		close(f.ended)
		f.ended = nil
	}
}

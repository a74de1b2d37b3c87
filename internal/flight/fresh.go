package flight

// A Ticket is a moment in a group's life. What begins after it may be shared by the caller who took it.
type Ticket uint64

// Ticket is for a caller who has just come. It is never zero.
func (g *Group[K, V]) Ticket() Ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Ticket(g.begun + 1)
}

// JoinFresh is Join for a caller that must share nothing that began before it took its ticket. Calls have a grade, which is zero
// for those of Join: it shares one of its own grade or a higher one, and leads one of its grade otherwise.
//
// Many such callers at once would make as many loads. So while such a call is under way that began before the ticket, JoinFresh
// returns neither a call nor the lead but a channel, which is closed when that one has ended or is not shared any more. Whoever
// comes first then leads the next call, which began after all their tickets, and the others share it. A caller who is not patient
// leads at once.
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
			g.drop(c)
		}
	}
	if call, lead = g.join(key); lead {
		call.grade = grade
	}
	return call, lead, nil
}

// over tells those who wait for the call to end, to lead the next one. The caller holds group.mu.
func (c *Call[K, V]) over() {
	if c.ended != nil {
		close(c.ended)
		c.ended = nil
	}
}

package engine

import (
	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/near"
)

// A Usage is how full an Engine is: its memory, its places for loads, and its journal.
type Usage struct {
	Memory           near.Usage
	Running, Queued  int // loads
	Held, Unreturned int // leases
	Journal          journal.Usage
}

// Usage returns how full the engine is.
func (e *Engine) Usage() (u Usage) {
	u.Memory, u.Journal = e.Near.Usage(), e.journal.Usage()
	u.Running, u.Queued = e.loads.Usage()
	if e.leases != nil {
		u.Held, u.Unreturned = e.leases.Usage()
	}
	return u
}

package aside

// unmarked are the callers of the confirmed invalidations that are not written down in Redis yet, the oldest first.
type unmarked struct {
	runs []run
	by   map[string]uint64 // how many, by caller
}

// A run is how many in a row are of one caller.
type run struct {
	caller string
	n      uint64
}

func (u *unmarked) add(caller string) {
	if u.by == nil {
		u.by = make(map[string]uint64)
	}
	u.by[caller]++
	if last := len(u.runs) - 1; last >= 0 && u.runs[last].caller == caller {
		u.runs[last].n++
		return
	}
	u.runs = append(u.runs, run{caller, 1})
}

func (u *unmarked) of(caller string) uint64 { return u.by[caller] }

// forget takes out the n oldest.
func (u *unmarked) forget(n uint64) {
	for n > 0 && len(u.runs) > 0 {
		first := &u.runs[0]
		part := min(n, first.n)
		n, first.n = n-part, first.n-part
		if u.by[first.caller] -= part; u.by[first.caller] == 0 {
			delete(u.by, first.caller)
		}
		if first.n == 0 {
			u.runs = u.runs[1:]
		}
	}
	if len(u.runs) == 0 {
		u.runs = nil
	}
}

package engine

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/gatewayz/aside/internal/freshness"
	"github.com/gatewayz/aside/internal/wire"
)

// A policy says for how long after their TTL its values are of use. A call, and more so a loader, may say that of its own value. Such a value
// carries its windows, in memory as the times of its plan, and in Redis in its header: other processes honour them, whatever their policy says.

// Windows are those of the value that one call stores, in place of its policy's.
type Windows struct {
	Stale   time.Duration
	OnError time.Duration // 0: as Stale
}

// askedWindows are those with which a value of the request is stored, unless its loader says otherwise.
func (r *Request) askedWindows() freshness.Windows {
	w := r.Policy.Windows
	if r.Windows != nil {
		w.Stale, w.OnError = r.Windows.Stale, r.Windows.OnError
	}
	return w
}

// CheckWindow returns an error for a window that no value can have: it is negative, less than the unit of Redis, or with the TTL longer than all
// times that are used. name is that of the field or argument.
func CheckWindow(name string, d, ttl time.Duration) error {
	switch ttl = Bounded(ttl); {
	case d < 0 || d > 0 && d < time.Millisecond:
		return invalidArgument(fmt.Sprintf("%s is %v: set at least 1ms, or 0 for none", name, d))
	case d > Longest-ttl:
		return invalidArgument(fmt.Sprintf("%s is %v, and the TTL %v: set at most 100 years for both together", name, d, ttl))
	}
	return nil
}

// CheckOrder returns an error if a value would be served at once for longer than where its load fails.
func CheckOrder(staleName string, stale time.Duration, onErrorName string, onError time.Duration) error {
	if onError > 0 && onError < stale {
		return invalidArgument(fmt.Sprintf("%s is %v, less than %s, which is %v: set at least as much, or 0 for as much", onErrorName, onError, staleName, stale))
	}
	return nil
}

// chooseWindows sets the windows of a loaded value: those of its loader, of its call, or of its policy, in this order. It returns an error if the
// loader has chosen ones that no value can have.
func (a *attempt) chooseWindows(d decision) error {
	const stale, onError = "Load.Stale", "Load.StaleIfError"
	w, ttl := a.askedWindows(), cmp.Or(d.ttl, a.TTL)
	staleName := "Stale"
	var errs [3]error
	if d.stale != nil {
		w.Stale, staleName = *d.stale, stale
		errs[0] = CheckWindow(stale, w.Stale, ttl)
	}
	if d.onError != nil {
		w.OnError = *d.onError
		errs[1], errs[2] = CheckWindow(onError, w.OnError, ttl), CheckOrder(staleName, w.Stale, onError, w.OnError)
	}
	for _, err := range errs {
		if err != nil {
			return &Error{Code: CodeInvalidArgument, Key: a.Key, Message: err.(*Error).Message}
		}
	}
	a.setWindows(w, a.Request.Windows != nil || d.stale != nil || d.onError != nil)
	return nil
}

// setWindows notes with which windows the value of a is stored. own says that they are not the policy's.
func (a *attempt) setWindows(w freshness.Windows, own bool) {
	a.windows, a.ownWindows = w, own
	if own {
		a.Policy.noteOwnWindows()
	}
}

// noteOwnWindows notes that a value of the policy may have windows of its own.
func (pl *Policy) noteOwnWindows() {
	if !pl.ownWindows.Load() { // most callers find it set, and do not write to a cache line that others read
		pl.ownWindows.Store(true)
	}
}

// strategic reports whether values of the policy may be loaded anew in the background, or served past their TTL: by the policy itself, or since
// this process has met one that says so.
func (pl *Policy) strategic() bool { return !pl.Windows.None() || pl.ownWindows.Load() }

// outlives reports whether values of the policy may be of use after their TTL.
func (pl *Policy) outlives() bool { return pl.Windows.Rest() > 0 || pl.ownWindows.Load() }

// windowsOf are the windows of a stored value: its own, or those of the policy. They begin where the policy lets its TTL end: a TTL that was
// shortened since shortens the whole life.
func (pl *Policy) windowsOf(h *wire.Header) freshness.Windows {
	w := pl.Windows
	if h.StaleUntil != 0 {
		pl.noteOwnWindows()
		w.Stale, w.OnError = window(h.FreshUntil, min(h.StaleUntil, h.DeadUntil)), window(h.FreshUntil, h.DeadUntil)
	}
	return w
}

// window is the time between two times of a header. They may be of any size: whoever can write to Redis has written them.
func window(from, to int64) time.Duration {
	if to <= from {
		return 0
	}
	micros := uint64(to) - uint64(from)
	if micros > math.MaxInt64/uint64(time.Microsecond) {
		return Longest
	}
	return Bounded(time.Duration(micros) * time.Microsecond)
}

package asidehttp

import (
	"context"
	"net/http"
	"time"

	"github.com/gatewayz/aside"
)

// post answers a POST.
func (h *handler) post(w http.ResponseWriter, r *http.Request, who visitor) *problem {
	if who.may&mayWarm == 0 { // checked before the body is read
		if p := h.gate.allow(w, who, mayInvalidate); p != nil {
			return p
		}
	}
	if r.URL.RawQuery != "" {
		return badRequest("a POST has no query: %s", example)
	}
	o, p := readOrder(w, r)
	if p == nil {
		if p = h.gate.allow(w, who, o.needs()); p != nil {
			p.bodyRead = true
			return p
		}
		carryOut := h.carryOut
		switch o.selector {
		case byWarm:
			carryOut = h.warm
		case byBypass:
			carryOut = h.bypass
		}
		if p = carryOut(w, r, who, o); p != nil {
			p.bodyRead = true
		}
	}
	return p
}

// needs is the first scope that an order needs.
func (o order) needs() scopes {
	switch o.selector {
	case byWarm:
		return mayWarm
	case byBypass:
		return mayEmpty // of one category too: the sources get all of its calls
	}
	return mayInvalidate
}

// carryOut checks the further scopes that an order needs, and invalidates its selection, or counts it for a dry run.
func (h *handler) carryOut(w http.ResponseWriter, r *http.Request, who visitor, o order) *problem {
	if o.dryRun { // its response shows what a listing shows
		if p := h.gate.allow(w, who, mayRead); p != nil {
			return p
		}
	}
	if o.selector == byCategory && o.names[0] == everything {
		if p := h.gate.allow(w, who, mayEmpty); p != nil {
			return p
		}
	}
	s, p := h.resolve(o)
	if p != nil {
		return p
	}
	start := time.Now()
	a := answer{Success: true, DryRun: o.dryRun}
	ctx, cancel := context.WithTimeout(r.Context(), o.wait)
	defer cancel()
	if o.dryRun {
		a.Matched, p = h.matched(ctx, who, s)
	} else {
		a.Invalidated, p = h.invalidated(onBehalfOf(ctx, who), s)
		h.audit(r.Context(), who, o, a.Invalidated, p, time.Since(start))
	}
	if p != nil {
		return p
	}
	done := a.Invalidated
	if o.dryRun {
		done = a.Matched
	}
	done.TookMS = milliseconds(time.Since(start))
	a.Timestamp = time.Now().UnixMilli()
	write(w, http.StatusOK, "application/json", a)
	return nil
}

// invalidated invalidates a selection, and waits for confirmation and cleanup until ctx ends.
func (h *handler) invalidated(ctx context.Context, s selection) (*count, *problem) {
	var receipt aside.Receipt
	var err error
	switch s.kind {
	case everything:
		receipt, err = h.cache.InvalidateAll(ctx)
	case byCategory:
		receipt, err = h.cache.InvalidateCategory(ctx, s.category.Category)
	case byPattern:
		receipt, err = h.cache.InvalidatePattern(ctx, s.pattern)
	case byKeys:
		receipt, err = h.cache.Invalidate(ctx, s.keys...)
	case byTags:
		receipt, err = h.cache.InvalidateTags(ctx, s.tags...)
	}
	if err != nil {
		return nil, problemOf(err)
	}
	confirmed := receipt.Confirmed || receipt.Wait(ctx) == nil
	removed, err := receipt.WaitCleanup(ctx)
	return h.counted(removed, err == nil && confirmed, &confirmed), nil
}

package asidehttp

import (
	"net/http"
	"time"
)

// bypass has the calls of a category bypass the cache, or ends that.
func (h *handler) bypass(w http.ResponseWriter, r *http.Request, who visitor, o order) *problem {
	var categories []string
	if o.names[0] != everything {
		categories = o.names
	}
	_, p := h.untilClosed()
	if p == nil && len(categories) > 0 {
		_, p = policies(h.cache.Policies()).of(categories[0])
	}
	if p == nil {
		if err := h.cache.Bypass(o.on, categories...); err != nil {
			p = problemOf(err)
		}
	}
	if h.auditBypass(r.Context(), who, o, p); p != nil {
		return p
	}
	now := append([]string{}, h.cache.Health().Bypassed...)
	write(w, http.StatusOK, "application/json", answer{Success: true, Bypassed: &now, Timestamp: time.Now().UnixMilli()})
	return nil
}

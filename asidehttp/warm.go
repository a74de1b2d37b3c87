package asidehttp

import (
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/closing"
	"github.com/gatewayz/aside/internal/nearby"
)

// A warmOrder is the part of a response to a POST that says what became of an order to warm.
type warmOrder struct {
	Name           string `json:"name"`
	AlreadyRunning bool   `json:"already_running"` // so the order has started nothing
}

// A warmReport is the part of a response that shows a warmer.
type warmReport struct {
	Name    string     `json:"name"`
	Running bool       `json:"running"`
	Started *time.Time `json:"started,omitempty"` // of the run that is running
	Runs    int        `json:"runs"`              // that have ended, since the start of this process
	Errors  int        `json:"errors"`            // of these with an error or a panic
	Last    *warmRun   `json:"last,omitempty"`    // the last run that has ended, whoever has ordered it
}

// A warmRun is a run that has ended.
type warmRun struct {
	Started   time.Time `json:"started"`
	Ended     time.Time `json:"ended"`
	Seen      int       `json:"seen"`
	Fresh     int       `json:"fresh"`
	Loaded    int       `json:"loaded"`
	NotFound  int       `json:"not_found"`
	Failed    int       `json:"failed"`
	Elsewhere bool      `json:"elsewhere"`
	TookMS    float64   `json:"took_ms"`
	Error     string    `json:"error,omitempty"`
}

func newWarmRun(started, ended time.Time, w aside.Warmed, err error) *warmRun {
	run := &warmRun{
		Started: started, Ended: ended, Seen: w.Seen, Fresh: w.Fresh, Loaded: w.Loaded, NotFound: w.NotFound, Failed: w.Failed,
		Elsewhere: w.Elsewhere, TookMS: milliseconds(ended.Sub(started)),
	}
	if err != nil {
		run.Error = harmless(err)
	}
	return run
}

// warm starts a warmer, and answers while it runs.
func (h *handler) warm(w http.ResponseWriter, r *http.Request, who visitor, o order) *problem {
	name := o.names[0]
	warmer, p := h.warmers.of(name)
	if p != nil {
		return p
	}
	over, p := h.untilClosed()
	if p != nil {
		return p
	}
	running := h.warmings.start(name, warmer, over, h.gate.log)
	h.auditWarm(r.Context(), who, o, running)
	write(w, http.StatusAccepted, "application/json", answer{Success: true, Warm: &warmOrder{name, running}, Timestamp: time.Now().UnixMilli()})
	return nil
}

// untilClosed returns a channel that is closed when the cache is. A cache that is closed already is a problem, and so is a nil one.
func (h *handler) untilClosed() (over <-chan struct{}, p *problem) {
	if h.cache == nil {
		return nil, problemOf(aside.ErrClosed)
	}
	over = closing.Of(h.cache)
	select {
	case <-over:
		return nil, problemOf(aside.ErrClosed)
	default:
		return over, nil
	}
}

// showWarmer answers with the state of the warmer that the query names.
func (h *handler) showWarmer(w http.ResponseWriter, who visitor, query url.Values) *problem {
	if who.may&mayWarm == 0 {
		if p := h.gate.allow(w, who, mayRead); p != nil {
			return p
		}
	}
	if len(query) > 1 || len(query["warm"]) > 1 {
		return badRequest("the query has more than one parameter: use ?warm=models alone to see a warmer")
	}
	name := query.Get("warm")
	if _, p := h.warmers.of(name); p != nil {
		return p
	}
	write(w, http.StatusOK, "application/json", struct {
		Warm warmReport `json:"warm"`
	}{h.warmings.report(name)})
	return nil
}

// of returns the warmer with a name. An unknown name is a problem that names the known ones.
func (all warmers) of(name string) (warmer, *problem) {
	if warmer, ok := all[name]; ok {
		return warmer, nil
	}
	if len(all) == 0 {
		return nil, unacceptable("there is no warmer %s: Options.Warmers of this server has none", quote(name))
	}
	names := make([]string, 0, len(all))
	for known := range all {
		names = append(names, known)
	}
	slices.Sort(names)
	return nil, unacceptable("there is no warmer %s: the warmers are %s", quote(name), nearby.Names(name, names))
}

package asidehttp

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp/internal/history"
)

// periods are those that the page can ask for. 0 is the life of the process.
var periods = map[string]time.Duration{"1m": time.Minute, "5m": 5 * time.Minute, "1h": time.Hour, "start": 0}

func periodOf(query url.Values) (time.Duration, *problem) {
	const usual = "5m"
	name := usual
	if query.Has("within") {
		name = query.Get("within")
	}
	d, ok := periods[name]
	if !ok {
		return 0, badRequest("there is no period %s: use within=1m, 5m, 1h or start", quote(name))
	}
	return d, nil
}

// figures are what is shown of a label. Times are in milliseconds.
type figures struct {
	Calls     uint64                 `json:"calls"`
	Hits      uint64                 `json:"hits"`
	Stale     uint64                 `json:"stale"`
	Negative  uint64                 `json:"negative"`
	Loads     uint64                 `json:"loads"`
	Errors    uint64                 `json:"errors"`
	Overloads uint64                 `json:"overloads"`
	LoadP99   float64                `json:"loadP99"`
	CallP99   float64                `json:"callP99"`
	Causes    map[aside.Cause]uint64 `json:"causes"` // without those that are 0
}

func figuresOf(f history.Figures) figures {
	maps.DeleteFunc(f.Causes, func(_ aside.Cause, n uint64) bool { return n == 0 })
	return figures{
		f.Calls, f.Hits, f.Stale, f.Negative, f.Loads, f.Errors, f.Overloads,
		millis(f.LoadTimes, 0.99), millis(f.CallTimes, 0.99), f.Causes,
	}
}

func millis(h aside.Histogram, quantile float64) float64 {
	return milliseconds(time.Duration(h.Quantile(quantile) * float64(time.Second)))
}

// A labelRow is a label with its figures in a period, and its course in the last hour.
type labelRow struct {
	Label string `json:"label"` // "" for labels that have no row of their own
	figures
	Course history.Bars `json:"course"`
}

// overview answers with the figures of the labels, and with the state of the cache.
func (d *dashboard) overview(_ *http.Request, _ visitor, query url.Values) (any, *problem) {
	within, p := periodOf(query)
	if p != nil {
		return nil, p
	}
	m := d.cache.Metrics()
	period, course := d.history.Last(within, m), d.history.Course()
	rows := make([]labelRow, 0, len(period.Labels))
	for _, label := range slices.Sorted(maps.Keys(period.Labels)) {
		rows = append(rows, labelRow{label, figuresOf(period.Labels[label]), course.Labels[label]})
	}
	states := d.cache.Recent().States
	const most = 8
	return struct {
		standing
		Seconds     float64              `json:"seconds"` // how long the period is; 0 for the life of the process
		Total       figures              `json:"total"`
		Labels      []labelRow           `json:"labels"`
		CourseFrom  int64                `json:"courseFrom"` // in milliseconds, as Date has it
		CourseStep  int64                `json:"courseStep"`
		InMemory    aside.MemoryMetrics  `json:"inMemory"`
		Loading     aside.LoadingMetrics `json:"loading"`
		Journal     aside.JournalMetrics `json:"journal"`
		StateEvents []aside.StateChange  `json:"states"`
	}{
		d.standing(m), period.Took.Seconds(), figuresOf(period.Total), rows, course.From.UnixMilli(), course.Step.Milliseconds(),
		m.InMemory, m.Loading, m.Journal, last(states, most),
	}, nil
}

// last returns the last elements of a list, and [] for nil, for JSON.
func last[T any](list []T, most int) []T {
	return append([]T{}, list[max(0, len(list)-most):]...)
}

// nodes answers with the Redis servers, and the durations of round trips to them.
func (d *dashboard) nodes(_ *http.Request, _ visitor, query url.Values) (any, *problem) {
	within, p := periodOf(query)
	if p != nil {
		return nil, p
	}
	type trip struct {
		Of    string  `json:"of"`
		Count uint64  `json:"count"`
		P50   float64 `json:"p50"`
		P99   float64 `json:"p99"`
	}
	m := d.cache.Metrics()
	period, trips := d.history.Last(within, m), []trip{}
	for _, of := range slices.Sorted(maps.Keys(period.Redis)) {
		times := period.Redis[of]
		trips = append(trips, trip{of, times.Count, millis(times, 0.5), millis(times, 0.99)})
	}
	return struct {
		standing
		Seconds  float64      `json:"seconds"`
		Nodes    []aside.Node `json:"nodes"`
		Trips    []trip       `json:"trips"`
		Messages uint64       `json:"invalidationMessages"`
		Lost     uint64       `json:"trackingLost"`
	}{d.standing(m), period.Took.Seconds(), append([]aside.Node{}, d.cache.Nodes()...), trips, m.InvalidationMessages, m.TrackingLost}, nil
}

// recent answers with the last events. The text of a loader's error is the program's, and may have an address or a value in it: it needs ScopeValues.
func (d *dashboard) recent(_ *http.Request, who visitor, _ url.Values) (any, *problem) {
	const most = 50 // of each kind
	r := d.cache.Recent()
	r.States, r.Invalidations, r.Inconsistent = last(r.States, most), last(r.Invalidations, most), last(r.Inconsistent, most)
	r.FailedLoads, r.SlowLoads = last(r.FailedLoads, most), last(r.SlowLoads, most)
	hidden := who.may&maySeeValues == 0
	if hidden {
		for i := range r.FailedLoads {
			r.FailedLoads[i].Error = ""
		}
	}
	return struct {
		standing
		aside.Recent
		Hidden bool `json:"errorsHidden"`
	}{d.standing(d.cache.Metrics()), r, hidden}, nil
}

// hot answers with the keys that are asked for most.
func (d *dashboard) hot(*http.Request, visitor, url.Values) (any, *problem) {
	const most = 100
	keys := d.cache.HotKeys()
	return struct {
		standing
		On   bool           `json:"on"` // Options.HotKeys is set
		Keys []aside.HotKey `json:"keys"`
	}{d.standing(d.cache.Metrics()), keys != nil, append([]aside.HotKey{}, keys[:min(len(keys), most)]...)}, nil
}

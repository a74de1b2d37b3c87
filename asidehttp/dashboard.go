package asidehttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp/internal/history"
	"github.com/gatewayz/aside/asidehttp/internal/page"
)

// DashboardOptions configures Dashboard.
type DashboardOptions struct {
	// Options are the keys, limits and the logger, as for AdminHandler.
	Options

	// Name is the heading of the page, and what an operator types to invalidate everything. It has at most 64 bytes. Default: "cache".
	Name string

	// Values lets a key with ScopeRead and ScopeValues see cached values, at most 64 KiB of each. Each look is logged. Default: false.
	Values bool

	// Redact returns what is shown of a value: v are the stored bytes, decompressed, or the first 64 KiB of them. It may change v. It is called by
	// many goroutines at once. Default: v as it is.
	Redact func(key string, v []byte) []byte

	// Allow says who sends a request that has no bearer key, by the program's own session, such as a cookie or the address of a VPN: a name for the
	// log, and scopes. Without scopes the request is denied. Requests from other sites are denied before, by http.CrossOriginProtection and by
	// Sec-Fetch-Site. Default: nobody is let in without a key.
	Allow func(*http.Request) (name string, scopes []Scope)
}

// Validate returns an error for each invalid option, as Options.Validate does. Dashboard logs it.
func (o DashboardOptions) Validate() error {
	_, err := o.heading()
	return errors.Join(o.Options.Validate(), err)
}

func (o DashboardOptions) heading() (string, error) {
	const name, most = "cache", 64
	switch {
	case o.Name == "":
		return name, nil
	case len(o.Name) > most || !utf8.ValidString(o.Name):
		return name, fmt.Errorf("asidehttp: DashboardOptions.Name is %s: use UTF-8, at most %d bytes", quote(o.Name), most)
	}
	return o.Name, nil
}

// Dashboard returns a handler with an operator's page, and the data for it. Mount it below any path that ends with a slash:
//
//	mux.Handle("/admin/cache/", asidehttp.Dashboard(c, asidehttp.DashboardOptions{Options: keys}))
//
// It may be mounted with http.StripPrefix and without, and behind a proxy that takes a prefix off. The page asks for a key of o, which it keeps in a
// variable and sends as Authorization: Bearer. The page itself holds nothing of the cache, and anybody can get it. Data needs ScopeRead, invalidations
// ScopeInvalidate and everything ScopeAll, as for AdminHandler. Handlers of one cache share their limits.
//
// Dashboard starts a timer that reads the cache's counters every ten seconds, and keeps them for an hour. It ends with the cache. All dashboards of a
// cache share it.
//
// The server's WriteTimeout must be longer than 9 s.
func Dashboard(c *aside.Cache, o DashboardOptions) http.Handler {
	heading, err := o.heading()
	d := &dashboard{handler: newHandlerFor(c, o.Options, o.Allow), heading: heading, values: o.Values, redact: o.Redact, history: sharedOf(c).historyOf(c)}
	if err != nil {
		d.gate.log.Error("asidehttp: invalid options ignored, they grant no access", "error", err)
	}
	if o.Allow != nil {
		d.origin = http.NewCrossOriginProtection()
	}
	files := page.New(o.Allow != nil)
	data := map[string]http.Handler{
		"session.json":  d.get(0, d.session),
		"overview.json": d.get(mayRead, d.overview, "within"),
		"nodes.json":    d.get(mayRead, d.nodes, "within"),
		"recent.json":   d.get(mayRead, d.recent),
		"hot.json":      d.get(mayRead, d.hot),
		"keys.json":     d.get(mayRead, d.keys, "pattern"),
		"entry.json":    d.get(mayRead, d.entry, "key"),
		"invalidate":    d.gate.guard(d.order),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := data[page.Name(r)]; h != nil {
			page.Harden(w.Header())
			h.ServeHTTP(w, r)
			return
		}
		files.ServeHTTP(w, r)
	})
}

// A dashboard is the data of a page.
type dashboard struct {
	*handler
	heading string
	values  bool
	redact  func(key string, v []byte) []byte
	history *history.History
	origin  *http.CrossOriginProtection // nil where nobody is let in without a key
}

// get returns the handler of data that needs scopes, and takes the parameters of some names.
func (d *dashboard) get(needs scopes, answer func(*http.Request, visitor, url.Values) (any, *problem), names ...string) http.Handler {
	return d.gate.guard(func(w http.ResponseWriter, r *http.Request, who visitor) *problem {
		if !reads(r) {
			return notAllowed(w, "GET, HEAD", "use GET")
		}
		if p := d.gate.allow(w, who, needs); p != nil {
			return p
		}
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return badRequest("the query cannot be read")
		}
		for name, values := range query {
			if !slices.Contains(names, name) || len(values) > 1 {
				return badRequest("the query has a parameter that is not known, or one twice: %s", quote(name))
			}
		}
		body, p := answer(r, who, query)
		if p == nil {
			write(w, http.StatusOK, "application/json", body)
		}
		return p
	})
}

// order answers a POST as AdminHandler does.
func (d *dashboard) order(w http.ResponseWriter, r *http.Request, who visitor) *problem {
	if r.Method != http.MethodPost {
		return notAllowed(w, "POST", "use POST to invalidate")
	}
	if d.origin != nil {
		if err := d.origin.Check(r); err != nil {
			return newProblem(http.StatusForbidden, "the request comes from another site: open the page of this service")
		}
	}
	return d.post(w, r, who)
}

// standing is what every answer begins with: of which process, and how it is.
type standing struct {
	Process string       `json:"process"`
	At      time.Time    `json:"at"`
	Health  aside.Health `json:"health"`
	Usable  bool         `json:"usable"` // the cache is neither nil nor closed
}

func (d *dashboard) standing(m aside.Metrics) standing {
	_, err := d.cache.Invalidate(context.Background()) // without keys: reports only whether the cache is usable
	return standing{m.Process, m.At, d.cache.Health(), err == nil}
}

// session says who the page is open for.
func (d *dashboard) session(_ *http.Request, who visitor, _ url.Values) (any, *problem) {
	categories := []string{}
	for _, p := range d.cache.Policies() {
		categories = append(categories, p.Category)
	}
	slices.Sort(categories)
	return struct {
		standing
		Heading    string   `json:"heading"`
		Key        string   `json:"key"`
		Read       bool     `json:"read"`
		Invalidate bool     `json:"invalidate"`
		Everything bool     `json:"everything"`
		Values     bool     `json:"values"`
		Categories []string `json:"categories"`
	}{
		d.standing(d.cache.Metrics()), d.heading, who.name, who.may&mayRead != 0, who.may&mayInvalidate != 0, who.may&mayEmpty != 0,
		d.seesValues(who), slices.Compact(categories),
	}, nil
}

func (d *dashboard) seesValues(who visitor) bool {
	return d.values && who.may&(mayRead|maySeeValues) == mayRead|maySeeValues
}

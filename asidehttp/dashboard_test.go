package asidehttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
)

const keyValues = "canary-of-a-key-that-sees-values"

// dashboardData are the paths of the data, and what they need.
var dashboardData = map[string]asidehttp.Scope{
	"session.json": "", "overview.json": asidehttp.ScopeRead, "overview.json?within=1m": asidehttp.ScopeRead, "nodes.json?within=start": asidehttp.ScopeRead,
	"recent.json": asidehttp.ScopeRead, "hot.json": asidehttp.ScopeRead, "keys.json?pattern=models:*": asidehttp.ScopeRead, "entry.json?key=models:all:all": asidehttp.ScopeRead,
}

func dashboardOptions(log io.Writer) asidehttp.DashboardOptions {
	o := options(log)
	o.Keys = append(o.Keys,
		asidehttp.Key{Name: "looker", Secret: aside.NewSecret(keyValues), Scopes: []asidehttp.Scope{asidehttp.ScopeRead, asidehttp.ScopeValues}},
		asidehttp.Key{Name: "no reader", Secret: aside.NewSecret(keyValues + "-alone"), Scopes: []asidehttp.Scope{asidehttp.ScopeValues}})
	return asidehttp.DashboardOptions{Options: o}
}

func answerOf[T any](t testing.TB, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	require.Equal(t, 200, w.Code, w.Body)
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &v))
	return v
}

func TestTheDataOfADashboardNeedsItsScopes(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{Policies: tables()})
	left := seed(t, c)
	var log output
	h := asidehttp.Dashboard(c, dashboardOptions(&log))
	reads := map[string]bool{keyRead: true, keyAll: true, keyHashed: true, keyValues: true}
	for _, prefix := range []string{"/", "/admin/cache/"} {
		for path, scope := range dashboardData {
			require.Equal(t, 401, ask(h, "GET", prefix+path, "").Code, path)
			require.Equal(t, 401, ask(h, "GET", prefix+path, "", "Bearer "+keyWrong).Code, path)
			require.Equal(t, 405, ask(h, "DELETE", prefix+path, "", "Bearer "+keyAll).Code, path)
			for _, key := range []string{keyRead, keyAll, keyHashed, keyValues, keyChange, keyValues + "-alone"} {
				want := 200
				if scope != "" && !reads[key] {
					want = 403
				}
				w := ask(h, "GET", prefix+path, "", "Bearer "+key)
				require.Equal(t, want, w.Code, "%s with %s: %s", path, key, w.Body)
				require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
				require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
				require.NotContains(t, w.Body.String(), "canary")
			}
		}
	}
	for key, want := range map[string]int{keyRead: 403, keyValues: 403, keyChange: 200, keyAll: 200} {
		require.Equal(t, want, ask(h, "POST", "/x/invalidate", `{"keys":["models:all:all"]}`, "Bearer "+key).Code)
	}
	require.Equal(t, 403, ask(h, "POST", "/x/invalidate", `{"category":"all"}`, "Bearer "+keyHashed).Code)
	require.Equal(t, 405, ask(h, "GET", "/x/invalidate", "", "Bearer "+keyAll).Code)
	require.Equal(t, seeded-1, left())
	require.Equal(t, 200, ask(h, "GET", "/x/", "").Code, "the page is anybody's")
	require.NotContains(t, log.String(), "canary")
}

func TestWrongRequestsForTheDataOfADashboard(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{Policies: tables()})
	h := asidehttp.Dashboard(c, dashboardOptions(io.Discard))
	for path, want := range map[string]struct {
		status int
		says   string
	}{
		"overview.json?within=2d":             {400, "1m, 5m, 1h or start"},
		"overview.json?within=":               {400, "no period"},
		"overview.json?within=1m&within=5m":   {400, "twice"},
		"overview.json?pattern=models:*":      {400, "not known"},
		"nodes.json?within=-1":                {400, "no period"},
		"recent.json?%zz":                     {400, "cannot be read"},
		"keys.json":                           {422, "category"},
		"keys.json?pattern=*":                 {422, "category"},
		"keys.json?pattern=modles:*":          {422, "models"},
		"keys.json?pattern=models:a*b*c*d*e*": {422, "wildcards"},
		"entry.json":                          {422, "no category"},
		"entry.json?key=modles:all":           {422, "models"},
		"entry.json?key=models:%2A":           {422, "keys[0]"},
	} {
		w := ask(h, "GET", "/"+path, "", "Bearer "+keyAll)
		require.Equal(t, want.status, w.Code, "%s: %s", path, w.Body)
		require.Contains(t, problemOf(t, w).Detail, want.says, path)
	}
}

func TestANilAndAClosedCacheHaveADashboard(t *testing.T) {
	t.Parallel()
	closed := newCache(t, aside.Options{Policies: tables()})
	hClosed := asidehttp.Dashboard(closed, dashboardOptions(io.Discard))
	seed(t, closed)
	closed.Close()
	for name, h := range map[string]http.Handler{"nil": asidehttp.Dashboard(nil, dashboardOptions(io.Discard)), "zero": asidehttp.Dashboard(new(aside.Cache), dashboardOptions(io.Discard)), "closed": hClosed} {
		for _, path := range []string{"session.json", "overview.json", "nodes.json", "recent.json", "hot.json"} {
			answer := answerOf[struct {
				Process string
				Usable  bool
				Health  aside.Health
			}](t, ask(h, "GET", "/"+path, "", "Bearer "+keyAll))
			require.False(t, answer.Usable, name)
			require.NotEmpty(t, answer.Process)
			require.Equal(t, aside.StateDegraded, answer.Health.State)
			require.NotEmpty(t, answer.Health.Reason)
		}
		require.Equal(t, 503, ask(h, "GET", "/keys.json?pattern=models:*", "", "Bearer "+keyAll).Code, name)
		require.Equal(t, 503, ask(h, "GET", "/entry.json?key=models:all:all", "", "Bearer "+keyAll).Code, name)
		require.Equal(t, 503, ask(h, "POST", "/invalidate", `{"category":"models"}`, "Bearer "+keyAll).Code, name)
		require.Equal(t, 200, ask(h, "GET", "/", "").Code)
	}
}

// The program's own session opens the page, and no other site can use it.
func TestTheProgramsOwnSession(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{Policies: tables()})
	seed(t, c)
	var log output
	o := asidehttp.DashboardOptions{Options: asidehttp.Options{Logger: slog.New(slog.NewJSONHandler(&log, nil)), Rate: -1}}
	o.Keys = []asidehttp.Key{{Name: "deploy", Secret: aside.NewSecret(keyAll), Scopes: []asidehttp.Scope{asidehttp.ScopeAll}}}
	o.Allow = func(r *http.Request) (string, []asidehttp.Scope) {
		switch cookie, _ := r.Cookie("id"); {
		case cookie == nil:
			return "", nil
		case cookie.Value == "ann":
			return "ann", []asidehttp.Scope{asidehttp.ScopeRead, asidehttp.ScopeInvalidate}
		case cookie.Value == "nobody":
			return "nobody", []asidehttp.Scope{"unknown"}
		}
		return "", []asidehttp.Scope{asidehttp.ScopeRead}
	}
	h := asidehttp.Dashboard(c, o)
	send := func(method, target, body string, header ...string) int {
		r := httptest.NewRequest(method, "http://host"+target, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	const ann, order = "id=ann", `{"keys":["models:all:all"]}`
	require.Equal(t, 401, send("GET", "/overview.json", ""))
	require.Equal(t, 200, send("GET", "/overview.json", "", "Cookie", ann))
	require.Equal(t, 200, send("GET", "/overview.json", "", "Cookie", "id=other"))
	require.Equal(t, 401, send("GET", "/overview.json", "", "Cookie", "id=nobody"), "an unknown scope grants nothing")
	require.Equal(t, 401, send("GET", "/overview.json", "", "Cookie", ann, "Authorization", "Bearer "+keyWrong), "a wrong key is noticed")
	require.Equal(t, 401, send("GET", "/keys.json?pattern=models:*", "", "Cookie", ann, "Sec-Fetch-Site", "cross-site"), "nor may another site cause a scan")
	require.Equal(t, 200, send("GET", "/overview.json", "", "Cookie", ann, "Sec-Fetch-Site", "same-origin"))

	require.Equal(t, 401, send("POST", "/invalidate", order, "Cookie", ann, "Sec-Fetch-Site", "cross-site"))
	require.Equal(t, 401, send("POST", "/invalidate", order, "Cookie", ann, "Sec-Fetch-Site", "same-site"))
	require.Equal(t, 403, send("POST", "/invalidate", order, "Cookie", ann, "Origin", "http://evil.example"))
	require.Equal(t, 403, send("POST", "/invalidate", order, "Authorization", "Bearer "+keyAll, "Sec-Fetch-Site", "cross-site"))
	require.Equal(t, 403, send("POST", "/invalidate", order, "Cookie", "id=other"))
	require.Empty(t, c.Recent().Invalidations)
	require.Equal(t, 200, send("POST", "/invalidate", order, "Cookie", ann, "Sec-Fetch-Site", "same-origin", "Origin", "http://host"))
	require.Equal(t, 200, send("POST", "/invalidate", order, "Authorization", "Bearer "+keyAll))
	require.Equal(t, 403, send("POST", "/invalidate", `{"category":"all"}`, "Cookie", ann))
	require.Equal(t, "ann", c.Recent().Invalidations[0].Actor)
	require.Contains(t, log.String(), `"key":"ann"`)
	require.NotContains(t, log.String(), "canary")
	require.NotContains(t, log.String(), "no key is configured")
}

// A session has its own limits, and one place among the listings, as a key has.
func TestASessionHasALimitOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		o := asidehttp.DashboardOptions{Options: asidehttp.Options{Rate: 1, Burst: 3, Logger: slog.New(slog.DiscardHandler)}}
		o.Allow = func(r *http.Request) (string, []asidehttp.Scope) {
			return r.Header.Get("User"), []asidehttp.Scope{asidehttp.ScopeRead}
		}
		h := asidehttp.Dashboard(c, o)
		served := func(user string) (n int) {
			for range 5 {
				r := httptest.NewRequest("GET", "/session.json", nil)
				r.Header.Set("User", user)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code == 200 {
					n++
				}
			}
			return n
		}
		require.Equal(t, 3, served("ann"))
		require.Equal(t, 3, served("bob"))
		require.Equal(t, 0, served("ann"))
		c.Close()
		time.Sleep(10 * time.Second) // the timer of the history sees that
	})
}

func TestAListingOfADashboardStops(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{Policies: tables()})
	ctx := context.Background()
	for i := range 250 {
		var tags []string
		for n := range i % 12 {
			tags = append(tags, fmt.Sprint("tag ", n))
		}
		require.NoError(t, aside.Set(ctx, c, aside.TTL.ModelsGateway.Key("many", i), "v", aside.WithTags(tags...)))
	}
	require.NoError(t, aside.Set(ctx, c, aside.TTL.ModelsGateway.Key("few", 1), "v", aside.WithTags("\u202etag")))
	type listing struct {
		Process string
		Rows    []struct {
			Key     string
			Tags    []string
			AllTags int
			TTL     float64
			Size    int64
		}
		More bool
	}
	h := asidehttp.Dashboard(c, dashboardOptions(io.Discard))
	list := func(pattern string) listing {
		return answerOf[listing](t, ask(h, "GET", "/keys.json?pattern="+pattern, "", "Bearer "+keyRead))
	}
	many := list("models:many:*")
	require.Len(t, many.Rows, 200)
	require.True(t, many.More)
	require.NotEmpty(t, many.Process)
	for _, row := range many.Rows {
		require.LessOrEqual(t, len(row.Tags), 8)
		require.GreaterOrEqual(t, row.AllTags, len(row.Tags))
		require.Positive(t, row.TTL)
		require.Positive(t, row.Size)
	}
	few := list("models:few:*")
	require.False(t, few.More)
	require.Equal(t, "models:few:1", few.Rows[0].Key)
	require.Equal(t, []string{"\u202etag"}, few.Rows[0].Tags)
	require.NotNil(t, list("stats:*").Rows, "[] and not null")
	require.Empty(t, list("stats:*").Rows)
	long := strings.Repeat("x", 5000)
	for i := range 150 {
		require.NoError(t, aside.Set(ctx, c, aside.TTL.ModelsGateway.Key("long", i, long), "v"))
	}
	w := ask(h, "GET", "/keys.json?pattern=models:long:*", "", "Bearer "+keyRead)
	require.Less(t, w.Body.Len(), 700<<10)
	require.True(t, answerOf[listing](t, w).More)
}

type shownEntry struct {
	Key, Verdict string
	Value        *struct {
		Text, Form string
		Cut        bool
	}
	Generations []struct {
		Kind    string
		Current bool
	}
	Error    string
	InMemory *struct{ Verdict string }
}

func TestAValueIsShownToWhoMaySeeIt(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{Policies: tables()})
	ctx, key := context.Background(), aside.TTL.ModelsAll.Key("all", "all")
	require.NoError(t, aside.Set(ctx, c, key, struct {
		A   []int
		Big uint64
	}{[]int{1}, 12345678901234567890}))
	show := func(o asidehttp.DashboardOptions, secret string) shownEntry {
		return answerOf[shownEntry](t, ask(asidehttp.Dashboard(c, o), "GET", "/entry.json?key=models:all:all", "", "Bearer "+secret))
	}
	var log output
	o := dashboardOptions(&log)
	e := show(o, keyAll)
	require.Equal(t, "served", e.Verdict)
	require.Nil(t, e.Value, "without the option nobody sees it")
	require.Equal(t, "served", e.InMemory.Verdict)
	o.Values = true
	require.Nil(t, show(o, keyRead).Value)
	require.NotContains(t, log.String(), "value shown")
	e = show(o, keyValues)
	require.Equal(t, "json", e.Value.Form)
	require.Equal(t, "{\n  \"A\": [\n    1\n  ],\n  \"Big\": 12345678901234567890\n}", e.Value.Text, "and no digit is lost")
	require.NotNil(t, show(o, keyAll).Value)
	show(o, keyValues)
	require.Equal(t, 2, strings.Count(log.String(), `"asidehttp: value shown"`), "a line for each key: %s", &log)
	require.Contains(t, log.String(), `"key":"looker"`)
	require.Contains(t, log.String(), `"name":"models:all:all"`)

	o.Redact = func(key string, v []byte) []byte {
		require.Equal(t, "models:all:all", key)
		require.Contains(t, string(v), "12345678901234567890")
		return []byte("hidden\n")
	}
	e = show(o, keyValues)
	require.Equal(t, "text", e.Value.Form)
	require.Equal(t, "hidden\n", e.Value.Text)
	require.Equal(t, "not cached", answerOf[shownEntry](t, ask(asidehttp.Dashboard(c, o), "GET", "/entry.json?key=models:no:no", "", "Bearer "+keyAll)).Verdict)
}

func TestFormsOfAShownValue(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{Policies: tables(), MaxValueBytes: 1 << 20})
	o := dashboardOptions(io.Discard)
	o.Values = true
	h := asidehttp.Dashboard(c, o)
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	for name, v := range map[string]struct {
		value []byte
		form  string
		cut   bool
	}{
		"text":   {[]byte("caf\u00e9 \u202e"), "text", false},
		"long":   {[]byte(strings.Repeat("\u00e9", 100_000)), "text", true},
		"odd":    {[]byte("x" + strings.Repeat("\u00e9", 100_000)), "text", true},
		"binary": {[]byte{0xff, 0, 1}, "hex", false},
		"large":  {[]byte(strings.Repeat("\xff", 100_000)), "hex", true},
		"json":   {[]byte(`{"a":1}`), "json", false},
		"deep":   {[]byte(deep), "text", false},
		"half":   {[]byte(`{"a":` + strings.Repeat("1", 100_000) + "}"), "text", true},
	} {
		require.NoError(t, aside.Set(context.Background(), c, aside.TTL.ModelsGateway.Key(name, 1), v.value))
		w := ask(h, "GET", "/entry.json?key=models:"+name+":1", "", "Bearer "+keyAll)
		e := answerOf[shownEntry](t, w)
		require.Equal(t, v.form, e.Value.Form, name)
		require.Equal(t, v.cut, e.Value.Cut, name)
		require.Less(t, w.Body.Len(), 200<<10, name)
	}
}

// The text of a loader's error is the program's. It may hold an address or a password.
func TestErrorsOfLoadersNeedTheScopeValues(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{Policies: tables()})
	_, err := aside.GetOrLoad(t.Context(), c, aside.TTL.ModelsAll.Key("all", "all"), func(context.Context) (string, error) { return "", errors.New("canary in a DSN") })
	require.Error(t, err)
	h := asidehttp.Dashboard(c, dashboardOptions(io.Discard))
	for _, key := range []string{keyRead, keyHashed} {
		for path := range dashboardData {
			require.NotContains(t, ask(h, "GET", "/"+path, "", "Bearer "+key).Body.String(), "canary", path)
		}
	}
	for _, key := range []string{keyValues, keyAll} {
		require.Contains(t, ask(h, "GET", "/recent.json", "", "Bearer "+key).Body.String(), "canary in a DSN")
	}
	require.Contains(t, ask(h, "GET", "/recent.json", "", "Bearer "+keyRead).Body.String(), `"errorsHidden":true`)
	require.Equal(t, "canary in a DSN", c.Recent().FailedLoads[0].Error, "the cache keeps it")
}

func TestHotKeysOfADashboard(t *testing.T) {
	t.Parallel()
	type hot struct {
		On   bool
		Keys []aside.HotKey
	}
	show := func(c *aside.Cache) hot {
		return answerOf[hot](t, ask(asidehttp.Dashboard(c, dashboardOptions(io.Discard)), "GET", "/hot.json", "", "Bearer "+keyRead))
	}
	require.False(t, show(newCache(t, aside.Options{})).On)
	c := newCache(t, aside.Options{Policies: tables(), HotKeys: 20})
	require.Equal(t, hot{true, []aside.HotKey{}}, show(c))
	key := aside.TTL.ModelsAll.Key("all", "all")
	eventually(t, "a call was drawn", func() bool {
		for range 5000 {
			_, err := aside.GetOrLoad(context.Background(), c, key, func(context.Context) (string, error) { return "v", nil })
			require.NoError(t, err)
		}
		return len(show(c).Keys) > 0
	})
	require.Equal(t, "models:all:all", show(c).Keys[0].Key)
	require.Equal(t, 1.0, show(c).Keys[0].Share)
}

func TestADashboardHidesItsOptions(t *testing.T) {
	t.Parallel()
	o := dashboardOptions(io.Discard)
	requireHidden(t, o, "DashboardOptions")
	requireHidden(t, asidehttp.Dashboard(newCache(t, aside.Options{}), o), "a Dashboard")
	require.NoError(t, o.Validate())
	o.Name, o.Burst = strings.Repeat("x", 65), -1
	err := o.Validate()
	require.ErrorContains(t, err, "DashboardOptions.Name")
	require.ErrorContains(t, err, "Options.Burst")
	var log output
	o.Logger = log.logger()
	h := asidehttp.Dashboard(newCache(t, aside.Options{}), o)
	require.Contains(t, log.String(), "DashboardOptions.Name")
	require.Contains(t, ask(h, "GET", "/session.json", "", "Bearer "+keyAll).Body.String(), `"heading":"cache"`)
}

func TestACacheWithADashboardCanBeCollected(t *testing.T) {
	t.Parallel()
	collected := make(chan struct{})
	func() {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		asidehttp.Dashboard(c, dashboardOptions(io.Discard))
		c.Close()
		runtime.AddCleanup(c, func(done chan struct{}) { close(done) }, collected)
	}()
	for deadline := time.Now().Add(asidetest.Bound); ; {
		runtime.GC()
		select {
		case <-collected:
			return
		case <-time.After(10 * time.Millisecond):
			require.True(t, time.Now().Before(deadline), "it is still held")
		}
	}
}

// busy is a cache with many labels that have counted something.
func busy(t testing.TB, labels int) *aside.Cache {
	var policies []aside.Policy
	for i := range labels {
		policies = append(policies, aside.Policy{Name: fmt.Sprintf("policy-%02d", i), Category: fmt.Sprintf("category-%02d", i), TTL: time.Hour})
	}
	c := newCache(t, aside.Options{Policies: policies})
	for i := range policies {
		for n := range 40 {
			_, err := aside.GetOrLoad(context.Background(), c, policies[i].Key(n%20), func(context.Context) (string, error) { return "v", nil })
			require.NoError(t, err)
		}
	}
	return c
}

func TestTheOverviewOfManyLabelsIsSmall(t *testing.T) {
	t.Parallel()
	c := busy(t, 40)
	h := asidehttp.Dashboard(c, dashboardOptions(io.Discard))
	w := ask(h, "GET", "/overview.json?within=start", "", "Bearer "+keyRead)
	a := answerOf[struct {
		Labels []struct {
			Label       string
			Calls, Hits uint64
		}
		Total struct{ Calls, Hits uint64 }
	}](t, w)
	require.Less(t, w.Body.Len(), 50<<10)
	require.Len(t, a.Labels, 33, "32, and one for the others")
	require.EqualValues(t, 8*40, a.Labels[0].Calls)
	require.EqualValues(t, 40, a.Labels[1].Calls)
	require.EqualValues(t, 20, a.Labels[1].Hits)
	require.EqualValues(t, 1600, a.Total.Calls)
}

// An overview of 32 labels, which each poll of a page asks for.
func BenchmarkOverview(b *testing.B) {
	h := asidehttp.Dashboard(busy(b, 32), dashboardOptions(io.Discard))
	var size int
	for b.Loop() {
		size = ask(h, "GET", "/overview.json", "", "Bearer "+keyRead).Body.Len()
	}
	b.ReportMetric(float64(size), "bytes")
}

// tables are policies of all categories of the table of ready ones.
func tables() []aside.Policy {
	return []aside.Policy{aside.TTL.ModelsAll, aside.TTL.ModelsGateway, aside.TTL.SessionsList, aside.TTL.ChatStats, aside.TTL.UserProfile, aside.TTL.ActivityStats, aside.TTL.RankingsModels}
}

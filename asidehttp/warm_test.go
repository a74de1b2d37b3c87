package asidehttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

const keyWarm = "canary-of-a-key-that-warms"

func warmOptions(log io.Writer, warmers map[string]func(context.Context) (aside.Warmed, error)) asidehttp.Options {
	o := options(log)
	o.Keys = append(o.Keys, asidehttp.Key{Name: "cron", Secret: aside.NewSecret(keyWarm), Scopes: []asidehttp.Scope{asidehttp.ScopeWarm}})
	o.Warmers = warmers
	return o
}

type warmers = map[string]func(context.Context) (aside.Warmed, error)

// A report is what GET ?warm= answers.
type report struct {
	Name    string
	Running bool
	Started *time.Time
	Runs    int
	Errors  int
	Last    *struct {
		Started, Ended              time.Time
		Seen, Fresh, Loaded, Failed int
		NotFound                    int     `json:"not_found"`
		TookMS                      float64 `json:"took_ms"`
		Elsewhere                   bool
		Error                       string
	}
}

func reportOf(t testing.TB, h http.Handler, name string) report {
	t.Helper()
	w := ask(h, "GET", "/?warm="+name, "", "Bearer "+keyWarm)
	require.Equal(t, 200, w.Code, w.Body)
	var body struct{ Warm report }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
	require.Equal(t, name, body.Warm.Name)
	return body.Warm
}

// ended waits for the end of so many runs.
func ended(t testing.TB, h http.Handler, name string, runs int) (r report) {
	t.Helper()
	eventually(t, "so many runs have ended", func() bool { r = reportOf(t, h, name); return r.Runs == runs && !r.Running })
	return r
}

func started(t testing.TB, h http.Handler, name, key string) (already bool) {
	t.Helper()
	w := ask(h, "POST", "/", `{"warm":"`+name+`"}`, "Bearer "+key)
	require.Equal(t, http.StatusAccepted, w.Code, w.Body)
	var body struct {
		Success bool
		Warm    struct {
			Name           string
			AlreadyRunning *bool `json:"already_running"`
		}
		Timestamp int64
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
	require.True(t, body.Success)
	require.Equal(t, name, body.Warm.Name)
	require.Positive(t, body.Timestamp)
	return *body.Warm.AlreadyRunning
}

func TestAWarmerRunsInTheBackgroundAndIsShown(t *testing.T) {
	t.Parallel()
	var log output
	c := newCache(t, aside.Options{})
	l := aside.NewBatchLoader(c, aside.TTL.ModelsAll, func(_ context.Context, ids []string) (map[string]string, error) {
		values := map[string]string{}
		for _, id := range ids {
			if id != "none" {
				values[id] = id
			}
		}
		return values, nil
	})
	require.NoError(t, aside.Set(t.Context(), c, l.Key("a"), "cached"))
	release := make(chan struct{})
	h := asidehttp.AdminHandler(c, warmOptions(&log, warmers{"models": func(ctx context.Context) (aside.Warmed, error) {
		<-release
		return l.Warm(ctx, func(yield func(string) bool) { _ = yield("a") && yield("b") && yield("none") }, aside.Warming{})
	}}))
	r := reportOf(t, h, "models")
	require.Equal(t, report{Name: "models"}, r)
	require.False(t, started(t, h, "models", keyWarm), "the answer does not wait for the end")
	r = reportOf(t, h, "models")
	require.True(t, r.Running)
	require.NotNil(t, r.Started)
	require.Nil(t, r.Last)
	require.True(t, started(t, h, "models", keyAll))
	close(release)
	r = ended(t, h, "models", 1)
	require.Nil(t, r.Started)
	require.Zero(t, r.Errors)
	require.Equal(t, []int{3, 1, 1, 1, 0}, []int{r.Last.Seen, r.Last.Fresh, r.Last.Loaded, r.Last.NotFound, r.Last.Failed})
	require.False(t, r.Last.Ended.Before(r.Last.Started))
	require.Positive(t, r.Last.TookMS)
	require.Empty(t, r.Last.Error)
	require.False(t, r.Last.Elsewhere)
	logged(t, &log, `"msg":"asidehttp: warmed","name":"models","seen":3`, 1)
	logged(t, &log, `"msg":"asidehttp: warming ordered","key":"cron","client":"192.0.2.1","name":"models","already_running":false`, 1)
	logged(t, &log, `"already_running":true`, 1)
	require.NotContains(t, log.String(), "canary")
}

func TestOneRunOfAWarmerAtATimeForAllHandlersOfACache(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	var runs, running atomic.Int64
	release := make(chan struct{})
	run := func(context.Context) (aside.Warmed, error) {
		runs.Add(1)
		if running.Add(1) > 1 {
			t.Error("two runs at once")
		}
		defer running.Add(-1)
		<-release
		return aside.Warmed{}, nil
	}
	o := warmOptions(io.Discard, warmers{"models": run, "others": func(context.Context) (aside.Warmed, error) { return aside.Warmed{}, nil }})
	first, second := asidehttp.AdminHandler(c, o), asidehttp.AdminHandler(c, o)
	require.False(t, started(t, first, "models", keyWarm))
	done := make(chan bool, 20)
	for range 10 {
		for _, h := range []http.Handler{first, second} {
			go func() { done <- started(t, h, "models", keyWarm) }()
		}
	}
	for range 20 {
		require.True(t, <-done)
	}
	require.False(t, started(t, second, "others", keyWarm), "another name runs beside it")
	ended(t, first, "others", 1)
	other := newCache(t, aside.Options{})
	apart := asidehttp.AdminHandler(other, warmOptions(io.Discard, warmers{"models": func(context.Context) (aside.Warmed, error) { return aside.Warmed{}, nil }}))
	require.False(t, started(t, apart, "models", keyWarm), "another cache has its own runs")
	ended(t, apart, "models", 1)
	close(release)
	ended(t, second, "models", 1)
	require.EqualValues(t, 1, runs.Load())
	require.False(t, started(t, second, "models", keyWarm), "the next one may begin")
	ended(t, first, "models", 2)
	require.EqualValues(t, 2, runs.Load())
}

func TestWhoMayWarm(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	var runs atomic.Int64
	h := asidehttp.AdminHandler(c, warmOptions(io.Discard, warmers{"models": func(context.Context) (aside.Warmed, error) {
		runs.Add(1)
		return aside.Warmed{}, nil
	}}))
	seed(t, c)
	for _, row := range []struct {
		method, target, body string
		want                 map[string]int // by key
	}{
		{"POST", "/", `{"warm":"models"}`, map[string]int{keyAll: 202, keyWarm: 202, keyRead: 403, keyChange: 403, keyHashed: 403, keyWrong: 401}},
		{"GET", "/?warm=models", "", map[string]int{keyAll: 200, keyWarm: 200, keyRead: 200, keyChange: 403, keyHashed: 200, keyWrong: 401}},
		{"GET", "/?metrics=true", "", map[string]int{keyAll: 200, keyWarm: 403}},
		{"POST", "/", `{"category":"all"}`, map[string]int{keyWarm: 403, keyChange: 403}},
		{"POST", "/", `{"category":"models"}`, map[string]int{keyWarm: 403, keyChange: 200}},
		{"POST", "/", `{"keys":["models:all:all"]}`, map[string]int{keyWarm: 403}},
		{"POST", "/", `{"category":"models","dry_run":true}`, map[string]int{keyWarm: 403}},
	} {
		for key, want := range row.want {
			before := runs.Load()
			w := ask(h, row.method, row.target, row.body, "Bearer "+key)
			require.Equal(t, want, w.Code, "%s %s %s %s", row.method, row.target, row.body, w.Body)
			if want == 202 {
				eventually(t, "it runs", func() bool { return runs.Load() == before+1 })
				eventually(t, "it has ended", func() bool { return !reportOf(t, h, "models").Running })
			}
			require.NotContains(t, w.Body.String(), "canary")
		}
	}
	require.EqualValues(t, 2, runs.Load())
	w := ask(h, "POST", "/", `{"warm":"models"}`, "Bearer "+keyChange)
	require.Contains(t, w.Body.String(), `lacks the scope \"warm\"`)
	require.Contains(t, w.Header().Get("WWW-Authenticate"), `scope="warm"`)
}

func TestWrongOrdersToWarm(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	nothing := func(context.Context) (aside.Warmed, error) { t.Error("it was started"); return aside.Warmed{}, nil }
	h := asidehttp.AdminHandler(c, warmOptions(io.Discard, warmers{"models": nothing, "rankings": nothing}))
	none := asidehttp.AdminHandler(c, options(io.Discard))
	for _, row := range []struct {
		h                    http.Handler
		method, target, body string
		status               int
		says                 string
	}{
		{h, "POST", "/", `{"warm":"modles"}`, 422, `there is no warmer \"modles\": the warmers are models, rankings`},
		{h, "POST", "/", `{"warm":"` + strings.Repeat("x", 1025) + `"}`, 422, "1025 bytes"},
		{h, "POST", "/", `{"warm":""}`, 400, "warm is not a text"},
		{h, "POST", "/", `{"warm":["models"]}`, 400, "warm is not a text"},
		{h, "POST", "/", `{"warm":"models","wait":1}`, 400, "no other field"},
		{h, "POST", "/", `{"dry_run":true,"warm":"models"}`, 400, "no other field"},
		{h, "POST", "/", `{"warm":"models","category":"models"}`, 400, "both warm and category"},
		{h, "POST", "/", `{"warm":"models","warm":"rankings"}`, 400, "a field twice"},
		{none, "POST", "/", `{"warm":"models"}`, 422, "Options.Warmers of this server has none"},
		{h, "GET", "/?warm=modles", "", 422, `the warmers are models, rankings`},
		{h, "GET", "/?warm=", "", 422, `the warmers are models, rankings`},
		{h, "GET", "/?warm=models&warm=rankings", "", 400, "?warm=models alone"},
		{h, "GET", "/?warm=models&metrics=true", "", 400, "?warm=models alone"},
		{none, "GET", "/?warm=models", "", 422, "Options.Warmers of this server has none"},
		{asidehttp.Metrics(c, warmOptions(io.Discard, warmers{"models": nothing})), "GET", "/?warm=models", "", 400, "not known"},
		{asidehttp.AdminHandler(nil, warmOptions(io.Discard, warmers{"models": nothing})), "POST", "/", `{"warm":"models"}`, 503, "closed"},
		{asidehttp.AdminHandler(new(aside.Cache), warmOptions(io.Discard, warmers{"models": nothing})), "POST", "/", `{"warm":"models"}`, 503, "closed"},
	} {
		w := ask(row.h, row.method, row.target, row.body, "Bearer "+keyAll)
		require.Equal(t, row.status, w.Code, "%s %s: %s", row.target, row.body, w.Body)
		require.Contains(t, w.Body.String(), row.says)
	}
	require.NoError(t, c.Close())
	require.Equal(t, 503, ask(h, "POST", "/", `{"warm":"models"}`, "Bearer "+keyAll).Code)
}

func TestTheContextOfAWarmerEndsWithTheCache(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, warmOptions(io.Discard, warmers{"models": func(ctx context.Context) (aside.Warmed, error) {
		<-ctx.Done()
		return aside.Warmed{Seen: 7}, context.Cause(ctx)
	}}))
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, "POST", "/", strings.NewReader(`{"warm":"models"}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+keyWarm)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, http.StatusAccepted, w.Code, w.Body)
	cancel() // the request is over
	require.True(t, reportOf(t, h, "models").Running)
	require.NoError(t, c.Close())
	last := ended(t, h, "models", 1)
	require.Equal(t, 1, last.Errors)
	require.Equal(t, 7, last.Last.Seen)
	require.Equal(t, "the cache was closed", last.Last.Error)
}

func TestHowAWarmerFails(t *testing.T) {
	t.Parallel()
	const secret = "canary-in-an-error"
	for name, row := range map[string]struct {
		run        func(ctx context.Context) (aside.Warmed, error)
		says, logs string
	}{
		"error": {func(context.Context) (aside.Warmed, error) {
			return aside.Warmed{Failed: 1}, errors.New("dial postgres://user:" + secret + "@db")
		}, "the log of this server has its error", "dial postgres"},
		"library": {func(ctx context.Context) (aside.Warmed, error) {
			return aside.Warm(ctx, nil, func(func(int) bool) {}, func(int) aside.Key { return aside.Key{} }, func(context.Context, []int) (map[int]int, error) { return nil, nil }, aside.Warming{})
		}, "the cache is nil", "the cache is nil"},
		"panic":    {func(context.Context) (aside.Warmed, error) { panic("a bug with a " + secret) }, "the warmer panicked", "a bug with a"},
		"goexit":   {func(context.Context) (aside.Warmed, error) { runtime.Goexit(); return aside.Warmed{}, nil }, "runtime.Goexit", "runtime.Goexit"},
		"deadline": {func(context.Context) (aside.Warmed, error) { return aside.Warmed{}, context.DeadlineExceeded }, "time of the warmer", "deadline"},
		"hostile":  {func(context.Context) (aside.Warmed, error) { return aside.Warmed{}, hostileError{} }, "the log of this server has its error", "whose text panics"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log output
			c := newCache(t, aside.Options{})
			h := asidehttp.AdminHandler(c, warmOptions(&log, warmers{"models": row.run}))
			for runs := 1; runs < 5; runs++ {
				require.False(t, started(t, h, "models", keyWarm))
				r := ended(t, h, "models", runs)
				require.Equal(t, runs, r.Errors)
				require.Contains(t, r.Last.Error, row.says)
				require.NotContains(t, r.Last.Error, "canary")
			}
			logged(t, &log, "asidehttp: a warmer failed", 1)
			require.Contains(t, log.String(), row.logs)
			require.Equal(t, name == "panic", strings.Contains(log.String(), `"stack":`))
			require.Equal(t, 1, strings.Count(log.String(), "asidehttp: a warmer failed"), "one line in ten seconds")
		})
	}
}

type hostileError struct{}

func (hostileError) Error() string { panic("a bug") }

func TestOrdersToWarmAreSummedUpInTheLog(t *testing.T) {
	t.Parallel()
	var log output
	c := newCache(t, aside.Options{})
	h := asidehttp.AdminHandler(c, warmOptions(&log, warmers{"models": func(ctx context.Context) (aside.Warmed, error) {
		<-ctx.Done()
		return aside.Warmed{}, nil
	}}))
	for range 50 {
		started(t, h, "models", keyWarm)
	}
	require.Less(t, strings.Count(log.String(), "warming ordered"), 20)
	logged(t, &log, `"by":{"warm":`, 1)
	require.NoError(t, c.Close())
	ended(t, h, "models", 1)
}

func TestWrongWarmersAreNamed(t *testing.T) {
	t.Parallel()
	var log output
	fine := func(context.Context) (aside.Warmed, error) { return aside.Warmed{}, nil }
	o := warmOptions(&log, warmers{"": fine, "nil": nil, strings.Repeat("x", 1025): fine, "\xff": fine, "fine": fine})
	err := o.Validate()
	for _, want := range []string{"empty name", `Options.Warmers["nil"] is nil`, "at most 1024 bytes", `"\xff"`} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "fine")
	h := asidehttp.AdminHandler(newCache(t, aside.Options{}), o)
	logged(t, &log, "invalid options ignored", 1)
	require.Equal(t, 422, ask(h, "POST", "/", `{"warm":"nil"}`, "Bearer "+keyAll).Code)
	require.False(t, started(t, h, "fine", keyAll))
	ended(t, h, "fine", 1)
	o.Warmers = warmers{"fine": fine}
	require.NoError(t, o.Validate())
}

// An error whose methods hang holds up its own run alone.
func TestAWarmerWhoseErrorHangsHoldsUpNothing(t *testing.T) {
	t.Parallel()
	c := newCache(t, aside.Options{})
	hangs := hangingError{make(chan struct{}), make(chan struct{})}
	h := asidehttp.AdminHandler(c, warmOptions(io.Discard, warmers{
		"models":   func(context.Context) (aside.Warmed, error) { return aside.Warmed{}, hangs },
		"rankings": func(context.Context) (aside.Warmed, error) { return aside.Warmed{}, nil },
	}))
	started(t, h, "models", keyWarm)
	<-hangs.asked
	require.True(t, reportOf(t, h, "models").Running)
	require.True(t, started(t, h, "models", keyWarm))
	started(t, h, "rankings", keyWarm)
	ended(t, h, "rankings", 1)
	close(hangs.release)
	ended(t, h, "models", 1)
}

type hangingError struct{ asked, release chan struct{} }

func (e hangingError) Error() string { return "hangs" }

func (e hangingError) Is(error) bool {
	select {
	case <-e.asked:
	default:
		close(e.asked)
	}
	<-e.release
	return false
}

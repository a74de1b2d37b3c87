package asidehttp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

const secretOfFrontEnd = "canary-of-the-front-end"

// frontEnd is a transport that answers as it is told, inside a synctest bubble.
type frontEnd struct {
	mu      sync.Mutex
	answer  func(tag string, attempt int) *http.Response // nil: no answer, until the request is given up; guarded by mu, as all below
	asked   map[string][]time.Time
	current int
	most    int // at once
}

func newFrontEnd(answer func(tag string, attempt int) *http.Response) *frontEnd {
	return &frontEnd{answer: answer, asked: make(map[string][]time.Time)}
}

func status(code int) *http.Response {
	return &http.Response{StatusCode: code, Status: fmt.Sprint(code), Header: http.Header{}, Body: http.NoBody}
}

func (f *frontEnd) RoundTrip(r *http.Request) (*http.Response, error) {
	var body struct{ Tag, Path string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.asked[body.Tag] = append(f.asked[body.Tag], time.Now())
	resp := f.answer(body.Tag, len(f.asked[body.Tag]))
	f.current++
	f.most = max(f.most, f.current)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.current--
		f.mu.Unlock()
	}()
	if resp == nil {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	time.Sleep(10 * time.Millisecond)
	return resp, nil
}

func (f *frontEnd) times(tag string) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked[tag])
}

func revalidator(t testing.TB, o asidehttp.RevalidatorOptions) *asidehttp.Revalidator {
	t.Helper()
	if o.URL.Reveal() == "" {
		o.URL = aside.NewSecret("https://www.example.com/api/revalidate?canary=1")
	}
	o.Secret = aside.NewSecret(secretOfFrontEnd)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r, err := asidehttp.NewRevalidator(o)
	require.NoError(t, err)
	return r
}

func TestAFailedRevalidationIsRepeatedEverMoreSlowly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(_ string, attempt int) *http.Response {
			if attempt <= 9 {
				return status(500)
			}
			return status(204)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		r.Send(asidehttp.Target{Tag: "a"})
		time.Sleep(10 * time.Minute)
		times := front.times("a")
		require.Len(t, times, 10)
		for i, want := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second, 30 * time.Second} {
			got := times[i+1].Sub(times[i]) - 10*time.Millisecond
			require.LessOrEqual(t, got, want+time.Millisecond, i)
			require.GreaterOrEqual(t, got, want/2, i)
		}
		require.Equal(t, asidehttp.RevalidatorStats{Delivered: 1, Failed: 9}, r.Stats())
		require.NoError(t, r.Close(t.Context()))
	})
}

func TestBackoffsVary(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for range 8 {
		synctest.Test(t, func(t *testing.T) {
			front := newFrontEnd(func(_ string, attempt int) *http.Response { return status(500 - 300*min(attempt-1, 1)) })
			r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
			r.Send(asidehttp.Target{Tag: "a"})
			time.Sleep(time.Second)
			times := front.times("a")
			seen[times[1].Sub(times[0])] = true
			require.NoError(t, r.Close(t.Context()))
		})
	}
	require.Greater(t, len(seen), 5)
}

func TestARequestThatHangsIsGivenUpAndRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(_ string, attempt int) *http.Response {
			if attempt == 1 {
				return nil
			}
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, Timeout: 3 * time.Second})
		r.Send(asidehttp.Target{Tag: "a"})
		time.Sleep(4 * time.Second)
		times := front.times("a")
		require.Len(t, times, 2)
		require.GreaterOrEqual(t, times[1].Sub(times[0]), 3*time.Second)
		require.NoError(t, r.Close(t.Context()))
	})
}

func TestAFrontEndIsNotAskedBeforeItsRetryAfter(t *testing.T) {
	t.Parallel()
	for _, in := range []time.Duration{20 * time.Second, time.Hour} {
		for _, form := range []string{"seconds", "date"} {
			synctest.Test(t, func(t *testing.T) {
				front := newFrontEnd(func(_ string, attempt int) *http.Response {
					if attempt > 1 {
						return status(200)
					}
					resp := status(503)
					resp.Header.Set("Retry-After", fmt.Sprint(in.Seconds()))
					if form == "date" {
						resp.Header.Set("Retry-After", time.Now().Add(in).UTC().Format(http.TimeFormat))
					}
					return resp
				})
				r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
				r.Send(asidehttp.Target{Tag: "a"})
				time.Sleep(time.Minute)
				times := front.times("a")
				require.Len(t, times, 2)
				require.InDelta(t, min(in, 30*time.Second).Seconds(), times[1].Sub(times[0]).Seconds(), 1.1) // 30 s is MaxBackoff
				require.NoError(t, r.Close(t.Context()))
			})
		}
	}
}

// A front end that fails is asked by one request at a time, one that answers by a few.
func TestHowManyRequestsRunAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := true
		front := newFrontEnd(func(string, int) *http.Response {
			if down {
				return status(502)
			}
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		send := func() {
			for i := range 100 {
				r.Send(asidehttp.Target{Tag: fmt.Sprint(i)})
			}
		}
		r.Send(asidehttp.Target{Tag: "first"})
		synctest.Wait()
		time.Sleep(20 * time.Millisecond)
		send()
		time.Sleep(time.Minute)
		front.mu.Lock()
		require.Equal(t, 1, front.most)
		total := 0
		for _, times := range front.asked {
			total += len(times)
		}
		require.Less(t, total, 15, "in a minute")
		down = false
		front.mu.Unlock()
		time.Sleep(40 * time.Second)
		require.Equal(t, 0, r.Stats().Waiting)
		require.Equal(t, uint64(101), r.Stats().Delivered)
		require.NoError(t, r.Close(t.Context()))
		front.mu.Lock()
		defer front.mu.Unlock()
		require.Equal(t, 4, front.most)
	})
}

func TestOneThatIsRefusedAloneDoesNotHoldUpTheOthersForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(tag string, _ int) *http.Response {
			if tag == "poison" {
				return status(500)
			}
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		r.Send(asidehttp.Target{Tag: "poison"})
		for i := range 200 {
			time.Sleep(time.Second)
			r.Send(asidehttp.Target{Tag: fmt.Sprint(i)})
		}
		time.Sleep(time.Second)
		require.Equal(t, uint64(200), r.Stats().Delivered)
		require.Less(t, len(front.times("poison")), 20)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, r.Close(ctx))
	})
}

func TestATargetThatWaitsIsQueuedOnceOneThatIsBeingSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(string, int) *http.Response { return status(200) })
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		a := asidehttp.Target{Tag: "a"}
		r.Send(a)
		synctest.Wait() // it is being sent: what it asks for may have been read already
		r.Send(a, a, a)
		require.Equal(t, asidehttp.RevalidatorStats{Coalesced: 2, Waiting: 2}, r.Stats())
		time.Sleep(time.Second)
		require.Len(t, front.times("a"), 2)
		require.Equal(t, asidehttp.RevalidatorStats{Delivered: 2, Coalesced: 2}, r.Stats())
		require.NoError(t, r.Close(t.Context()))
	})
}

// One that fails while the same waits again is covered by that.
func TestAFailureIsCoveredByTheSameThatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(_ string, attempt int) *http.Response {
			return status(map[bool]int{true: 500, false: 200}[attempt <= 2])
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		a := asidehttp.Target{Tag: "a"}
		r.Send(a)
		synctest.Wait()
		r.Send(a)
		time.Sleep(time.Minute)
		require.Equal(t, asidehttp.RevalidatorStats{Delivered: 1, Coalesced: 1, Failed: 2}, r.Stats())
		require.NoError(t, r.Close(t.Context()))
	})
}

func TestWhatTheFrontEndNeverTakesIsGivenUpAndReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log output
		front := newFrontEnd(func(string, int) *http.Response { return status(500) })
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, GiveUpAfter: 10 * time.Minute, Logger: log.logger()})
		began := time.Now()
		r.Send(asidehttp.Target{Tag: "a"}, asidehttp.Target{Path: "/models"})
		time.Sleep(9 * time.Minute)
		require.Equal(t, uint64(0), r.Stats().Lost)
		r.Send(asidehttp.Target{Tag: "a"}) // as good as new
		time.Sleep(2 * time.Minute)
		require.Equal(t, uint64(1), r.Stats().Lost)
		require.Contains(t, log.String(), `"paths":["/models"]`)
		require.NotContains(t, log.String(), `"tags":["a"]`)
		time.Sleep(9 * time.Minute)
		require.Equal(t, uint64(2), r.Stats().Lost)
		require.Equal(t, 0, r.Stats().Waiting)
		require.Contains(t, log.String(), `"tags":["a"]`)
		times := front.times("a")
		require.Less(t, times[len(times)-1].Sub(began), 21*time.Minute)
		require.Equal(t, 1, strings.Count(log.String(), "revalidation requests failing"))
		require.NotContains(t, log.String(), "canary")
		require.NoError(t, r.Close(t.Context()))
	})
}

func TestARefusalIsFinal(t *testing.T) {
	t.Parallel()
	for code, final := range map[int]bool{
		200: false, 204: false, 301: false, 307: false, 308: false, 400: true, 401: false, 403: false, 404: false, 405: false, 413: true, 422: true, 408: false, 425: false, 429: false, 500: false, 502: false, 503: false, 504: false,
	} {
		synctest.Test(t, func(t *testing.T) {
			var log output
			front := newFrontEnd(func(_ string, attempt int) *http.Response {
				if attempt > 1 {
					return status(200)
				}
				return status(code)
			})
			r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, Logger: log.logger()})
			r.Send(asidehttp.Target{Tag: "a"})
			time.Sleep(time.Second)
			require.Equal(t, map[bool]asidehttp.RevalidatorStats{
				true:  {Lost: 1},
				false: {Delivered: 1, Failed: map[bool]uint64{true: 1}[code >= 300]},
			}[final], r.Stats(), code)
			require.Equal(t, final, strings.Contains(log.String(), "given up"), code)
			require.NoError(t, r.Close(t.Context()))
		})
	}
}

// What answers for a front end that is rolled out may be something else, but not for long.
func TestARefusalThatMayPassIsGivenUpAfterAMinute(t *testing.T) {
	t.Parallel()
	for _, code := range []int{301, 302, 307, 308, 401, 403, 404, 405, 410, 421} {
		synctest.Test(t, func(t *testing.T) {
			var log output
			front := newFrontEnd(func(string, int) *http.Response { return status(code) })
			r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, Logger: log.logger()})
			began := time.Now()
			r.Send(asidehttp.Target{Tag: "a"})
			time.Sleep(59 * time.Second)
			require.Equal(t, 1, r.Stats().Waiting, code)
			time.Sleep(40 * time.Second)
			require.Equal(t, uint64(1), r.Stats().Lost, code)
			times := front.times("a")
			require.Less(t, times[len(times)-1].Sub(began), 95*time.Second, code)
			require.Greater(t, len(times), 3, code)
			require.Contains(t, log.String(), "given up after 1m0s")
			require.NoError(t, r.Close(t.Context()))
		})
	}
}

func TestAFullQueueLosesAndReports(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log output
		front := newFrontEnd(func(string, int) *http.Response { return nil })
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, Queue: 3, Logger: log.logger()})
		for i := range 4 {
			r.Send(asidehttp.Target{Tag: fmt.Sprint(i)})
			synctest.Wait()
		}
		const more = 256 // for what is within nothing
		for i := range 5 + more {
			r.Send(asidehttp.Target{Tag: fmt.Sprint("later", i)})
		}
		require.Equal(t, asidehttp.RevalidatorStats{Lost: 2, Waiting: 7 + more}, r.Stats())
		synctest.Wait()
		require.Contains(t, log.String(), fmt.Sprint("later", 3+more))
		require.NotContains(t, log.String(), fmt.Sprint("later", 2+more))
		require.Contains(t, log.String(), "the queue is full")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorContains(t, r.Close(ctx), "263 undelivered targets")
	})
}

func TestCloseDrains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(tag string, attempt int) *http.Response {
			if tag == "down" && attempt <= 6 {
				return status(500)
			}
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		r.Send(asidehttp.Target{Tag: "down"})
		time.Sleep(10 * time.Second) // it waits for its next attempt
		for i := range 100 {
			r.Send(asidehttp.Target{Tag: fmt.Sprint(i)})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		require.NoError(t, r.Close(ctx))
		require.Less(t, time.Since(began), time.Minute)
		require.Equal(t, uint64(101), r.Stats().Delivered)
		require.NoError(t, r.Close(ctx), "again")

		r.Send(asidehttp.Target{Tag: "late"})
		require.Equal(t, uint64(1), r.Stats().Lost)
	})
}

func TestCloseEndsWithItsContextAndReportsWhatIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log output
		front := newFrontEnd(func(tag string, _ int) *http.Response {
			if tag == "hangs" {
				return nil
			}
			return status(500)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, Logger: log.logger(), Timeout: time.Hour})
		r.Send(asidehttp.Target{Tag: "hangs"}, asidehttp.Target{Tag: "fails"})
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		err := r.Close(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "2 undelivered targets")
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, uint64(2), r.Stats().Lost)
		require.Contains(t, log.String(), "hangs")
		require.Contains(t, log.String(), "fails")
	})
}

func TestATargetIsATagOrAPath(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(string, int) *http.Response { return status(200) })
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		r.Send(asidehttp.Target{}, asidehttp.Target{Tag: "a", Path: "/a"})
		time.Sleep(time.Second)
		require.Equal(t, asidehttp.RevalidatorStats{Lost: 2}, r.Stats())
		require.NoError(t, r.Close(t.Context()))
	})
}

// What a real server gets, in both forms, and that nobody else gets the secret.
func TestARequestInTheConventionOfNextJS(t *testing.T) {
	t.Parallel()
	type request struct {
		method, uri, kind, secret, body string
	}
	got := make(chan request, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- request{r.Method, r.RequestURI, r.Header.Get("Content-Type"), r.Header.Get("X-Revalidate-Secret") + r.Header.Get("X-Own"), string(body)}
		fmt.Fprint(w, `{"revalidated":true}`)
	}))
	defer server.Close()
	odd := `a "tag" & <ü>`
	for _, tt := range []struct {
		options asidehttp.RevalidatorOptions
		want    []request
	}{
		{asidehttp.RevalidatorOptions{URL: aside.NewSecret(server.URL + "/api/revalidate?v=1")}, []request{
			{"POST", "/api/revalidate?v=1", "application/json", secretOfFrontEnd, `{"path":"/models/gpt"}`},
			{"POST", "/api/revalidate?v=1", "application/json", secretOfFrontEnd, `{"tag":"a \"tag\" \u0026 \u003cü\u003e"}`},
		}},
		{asidehttp.RevalidatorOptions{URL: aside.NewSecret(server.URL + "/api/revalidate?v=1"), Query: true, SecretHeader: "X-Own"}, []request{
			{"POST", "/api/revalidate?path=%2Fmodels%2Fgpt&v=1", "", secretOfFrontEnd, ""},
			{"POST", "/api/revalidate?tag=a+%22tag%22+%26+%3C%C3%BC%3E&v=1", "", secretOfFrontEnd, ""},
		}},
	} {
		r := revalidator(t, tt.options)
		r.Send(asidehttp.Target{Path: "/models/gpt"}, asidehttp.Target{Tag: odd})
		require.NoError(t, r.Close(t.Context()))
		require.ElementsMatch(t, tt.want, []request{<-got, <-got})
	}
}

func TestARedirectIsNotFollowedWithTheSecret(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	server := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	for _, client := range []*http.Client{nil, {Transport: &http.Transport{DisableKeepAlives: true}}} {
		r := revalidator(t, asidehttp.RevalidatorOptions{URL: aside.NewSecret(server.URL), Client: client, GiveUpAfter: 1})
		r.Send(asidehttp.Target{Tag: "a"})
		require.NoError(t, r.Close(t.Context()))
		require.Equal(t, asidehttp.RevalidatorStats{Lost: 1, Failed: 1}, r.Stats())
	}
	require.Zero(t, elsewhere.Load())
}

func TestWrongOptionsOfARevalidator(t *testing.T) {
	t.Parallel()
	good := asidehttp.RevalidatorOptions{URL: aside.NewSecret("https://www.example.com/api/revalidate"), Secret: aside.NewSecret(secretOfFrontEnd)}
	for want, change := range map[string]func(o *asidehttp.RevalidatorOptions){
		"URL is":           func(o *asidehttp.RevalidatorOptions) { o.URL = aside.NewSecret("") },
		"URL is malformed": func(o *asidehttp.RevalidatorOptions) { o.URL = aside.NewSecret("www.example.com?canary") },
		"URL":              func(o *asidehttp.RevalidatorOptions) { o.URL = aside.NewSecret("ftp://www.example.com/canary") },
		"without a user":   func(o *asidehttp.RevalidatorOptions) { o.URL = aside.NewSecret("https://user:canary@www.example.com/") },
		"write https":      func(o *asidehttp.RevalidatorOptions) { o.URL = aside.NewSecret("https://canary.example.com:port/%zz") },
		"Secret is":        func(o *asidehttp.RevalidatorOptions) { o.Secret = aside.NewSecret("") },
		"Secret":           func(o *asidehttp.RevalidatorOptions) { o.Secret = aside.NewSecret("canary\n") },
		"SecretHeader":     func(o *asidehttp.RevalidatorOptions) { o.SecretHeader = "X: Y" },
		"Timeout":          func(o *asidehttp.RevalidatorOptions) { o.Timeout = -1 },
		"GiveUpAfter":      func(o *asidehttp.RevalidatorOptions) { o.GiveUpAfter = -1 },
		"Backoff":          func(o *asidehttp.RevalidatorOptions) { o.Backoff = -1 },
		"MaxBackoff":       func(o *asidehttp.RevalidatorOptions) { o.Backoff, o.MaxBackoff = 2, 1 },
		"Queue":            func(o *asidehttp.RevalidatorOptions) { o.Queue = -1 },
	} {
		o := good
		change(&o)
		_, err := asidehttp.NewRevalidator(o)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "canary")
	}
	good.URL = aside.NewSecret(good.URL.Reveal() + "?secret=canary")
	var log output
	log.logger().Info("x", "options", good)
	fmt.Fprintf(&log, "%v %+v %#v %s %x", good, good, &good, good, good)
	r := revalidator(t, good)
	require.NoError(t, r.Close(t.Context()))
	log.logger().Info("x", "revalidator", r)
	fmt.Fprintf(&log, "%v %+v %#v %s %x %+v", r, r, r, r, r, struct{ R *asidehttp.Revalidator }{r})
	require.NotContains(t, log.String(), "canary")
	require.Contains(t, log.String(), "www.example.com")
}

func TestWhatAnInvalidationIsToAFrontEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		invalidation aside.Invalidation
		tags         []string
	}{
		{aside.Invalidation{Keys: []string{"models:all:all", "user:DEF:profile"}}, []string{"key:models:all:all in category:models", "key:user:DEF:profile in category:user"}},
		{aside.Invalidation{Keys: []string{"models"}}, []string{"key:models in category:models"}},
		{aside.Invalidation{Tags: []string{"supplier 3"}}, []string{"tag:supplier 3 in tags"}},
		{aside.Invalidation{Tags: []string{"all", "category:models", "tags", "models"}}, []string{"tag:all in tags", "tag:category:models in tags", "tag:tags in tags", "tag:models in tags"}},
		{aside.Invalidation{Category: "models"}, []string{"category:models"}},
		{aside.Invalidation{Category: "tags"}, []string{"category:tags"}},
		{aside.Invalidation{Pattern: "sessions:ABC:*"}, []string{"category:sessions"}},
		{aside.Invalidation{All: true}, []string{"all"}},
		{aside.Invalidation{}, nil},
	} {
		var want []asidehttp.Target
		for _, tag := range tt.tags {
			tag, within, _ := strings.Cut(tag, " in ")
			want = append(want, asidehttp.Target{Tag: tag, Within: within})
		}
		require.Equal(t, want, asidehttp.Tags(tt.invalidation))
	}
}

// The front end fails, hangs, is gone and comes back, while tags are invalidated all the time. Of each tag, its last invalidation
// is seen by a request that begins after it and is answered, or it is reported.
func TestEveryTagIsDeliveredOrReported(t *testing.T) {
	t.Parallel()
	const tags, rounds = 50, 20
	var versions, delivered [tags]atomic.Int64
	var mode atomic.Int64 // 0 works, 1 fails, 2 hangs, 3 breaks connections off, 4 refuses one tag in ten for good
	var answers [5]atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Revalidate-Secret") != secretOfFrontEnd {
			t.Error("a request without the secret")
		}
		var body struct{ Tag string }
		var n int
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			return // the client has given it up
		}
		if _, err := fmt.Sscanf(body.Tag, "tag:%d", &n); err != nil {
			t.Error(err)
			return
		}
		seen := versions[n].Load()
		m := mode.Load()
		if m == 4 && n%10 != 0 {
			m = 0
		}
		answers[m].Add(1)
		switch m {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			select {
			case <-r.Context().Done():
			case <-time.After(asidetest.Bound):
			}
		case 3:
			panic(http.ErrAbortHandler)
		case 4:
			w.WriteHeader(http.StatusForbidden)
		default:
			for {
				old := delivered[n].Load()
				if old >= seen || delivered[n].CompareAndSwap(old, seen) {
					break
				}
			}
		}
	}))
	defer server.Close()

	var log output
	r := revalidator(t, asidehttp.RevalidatorOptions{
		URL: aside.NewSecret(server.URL), Logger: log.logger(), Timeout: 200 * time.Millisecond, Backoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond,
		Map: asidehttp.Tags,
	})
	c := newCache(t, aside.Options{OnInvalidated: r.Notify})
	made := 0
	for phase := range 20 {
		m := phase % 5
		before := answers[m].Load()
		mode.Store(int64(m))
		deadline := time.Now().Add(asidetest.Bound)
		for round := 0; round < rounds || answers[m].Load() == before; round++ { // until the mode has met a request
			require.True(t, time.Now().Before(deadline), "mode %d did not occur", m)
			for range 5 {
				n := rand.IntN(tags)
				versions[n].Add(1)
				_, err := c.InvalidateTags(context.Background(), fmt.Sprint(n))
				require.NoError(t, err)
				made++
			}
			time.Sleep(time.Millisecond) // a pace, not a condition
		}
	}
	mode.Store(0)
	require.NoError(t, c.Close()) // it tells of the last ones
	ctx, cancel := context.WithTimeout(context.Background(), 3*asidetest.Bound)
	defer cancel()
	require.NoError(t, r.Close(ctx))

	late := 0
	for n := range tags {
		if delivered[n].Load() != versions[n].Load() {
			late++
			require.Zero(t, n%10, "tag %d: %d of %d, and no refusal", n, delivered[n].Load(), versions[n].Load())
		}
	}
	stats := r.Stats()
	require.Equal(t, uint64(made), stats.Delivered+stats.Coalesced+stats.Lost)
	eventually(t, "what is lost is reported", func() bool { return reportedLost(t, log.String()) >= int(stats.Lost) })
	require.Equal(t, int(stats.Lost), reportedLost(t, log.String()))
	require.NotContains(t, log.String(), "canary")
	t.Logf("%d invalidations: %+v; %d tags reported for their last one; answers by mode %v", made, stats, late,
		[]int64{answers[0].Load(), answers[1].Load(), answers[2].Load(), answers[3].Load(), answers[4].Load()})
}

// reportedLost adds up how many targets a log says are lost.
func reportedLost(t testing.TB, log string) (lost int) {
	for line := range strings.Lines(log) {
		var l struct{ Lost int }
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		lost += l.Lost
	}
	return lost
}

// A server that is not there, and then is.
func TestAFrontEndThatStartsLate(t *testing.T) {
	t.Parallel()
	var got atomic.Int64
	addr := fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t))
	r := revalidator(t, asidehttp.RevalidatorOptions{URL: aside.NewSecret("http://" + addr), Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond})
	r.Send(asidehttp.Target{Tag: "a"})
	eventually(t, "it fails", func() bool { return r.Stats().Failed > 2 })
	listener, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	require.NoError(t, server.Listener.Close())
	server.Listener = listener
	server.Start()
	defer server.Close()
	eventually(t, "it is delivered", func() bool { return r.Stats().Delivered == 1 })
	require.Equal(t, int64(1), got.Load())
	require.NoError(t, r.Close(t.Context()))
}

// Errors of net/http hold the URL, and a URL may hold a secret.
func TestAFrontEndThatIsNotThereIsLoggedWithoutItsURL(t *testing.T) {
	t.Parallel()
	var log output
	r := revalidator(t, asidehttp.RevalidatorOptions{URL: aside.NewSecret("http://127.0.0.1:1/api/revalidate?secret=canary"), Logger: log.logger()})
	r.Send(asidehttp.Target{Tag: "a"})
	eventually(t, "it fails", func() bool { return r.Stats().Failed > 0 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, r.Close(ctx))
	logged(t, &log, "connection refused", 1)
	require.NotContains(t, log.String(), "canary")
}

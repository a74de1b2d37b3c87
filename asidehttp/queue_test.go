package asidehttp_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

func madeUp(category string, from, n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("%s:made-up-%d", category, from+i))
	}
	return keys
}

// Forty requests of a thousand made-up keys each: the queue tells of their category instead, and of everybody else's targets as they
// are.
func TestAQueueThatIsFloodedTellsOfTheCategory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log output
		down := true
		front := newFrontEnd(func(string, int) *http.Response {
			if down {
				return status(503)
			}
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, Logger: log.logger()})
		r.Notify(aside.Invalidation{Category: "models"})
		r.Notify(aside.Invalidation{Tags: []string{"supplier 3"}})
		for i := range 40 {
			r.Notify(aside.Invalidation{Keys: madeUp("user", 1000*i, 1000)})
			r.Notify(aside.Invalidation{Tags: madeUp("t", 1000*i, 1000)})
			require.LessOrEqual(t, r.Stats().Waiting, 10_000+10)
			r.Notify(aside.Invalidation{Keys: []string{fmt.Sprint("sessions:", i)}})
			time.Sleep(time.Second)
		}
		front.mu.Lock()
		down = false
		front.mu.Unlock()
		time.Sleep(10 * time.Minute)
		require.Zero(t, r.Stats().Waiting)
		require.Zero(t, r.Stats().Lost)
		for i := range 40 {
			require.NotEmpty(t, front.times(fmt.Sprint("key:sessions:", i)), i)
		}
		require.NotEmpty(t, front.times("category:models"))
		require.NotEmpty(t, front.times("category:user"))
		require.NotEmpty(t, front.times("tags"))
		require.Empty(t, front.times("all"))
		require.Empty(t, front.times("category:sessions"))
		s := r.Stats()
		require.EqualValues(t, 1+1+80_000+40, s.Delivered+s.Coalesced)
		require.LessOrEqual(t, strings.Count(log.String(), "\n"), 6, "a line in ten seconds")
		require.NoError(t, r.Close(t.Context()))
	})
}

// What is lost is counted, and told in a line now and then.
func TestWhatIsLostIsToldOnceInTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log output
		front := newFrontEnd(func(tag string, _ int) *http.Response { return status(400) })
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, Logger: log.logger(), Queue: 10})
		for i := range 100 {
			for j := range 100 {
				r.Send(asidehttp.Target{Tag: strings.Repeat(fmt.Sprint(i, " ", j, " "), 1000)})
			}
			time.Sleep(time.Second)
		}
		require.NoError(t, r.Close(t.Context()))
		require.EqualValues(t, 10_000, r.Stats().Lost)
		require.Equal(t, 10_000, reportedLost(t, log.String()))
		require.LessOrEqual(t, strings.Count(log.String(), "\n"), 12)
		require.Less(t, len(log.String()), 12*3000)
	})
}

// The lock of a sender is not held while its log handler works.
func TestALogHandlerDoesNotHoldUpASender(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(string, int) *http.Response { return status(200) })
		slow := &slowLog{}
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, Logger: slow.logger()})
		r.Send(asidehttp.Target{})
		began := time.Now()
		for i := range 1000 {
			r.Send(asidehttp.Target{}, asidehttp.Target{Tag: fmt.Sprint(i % 10)})
			_ = r.Stats()
		}
		require.Zero(t, time.Since(began))
		time.Sleep(time.Hour)
		require.NoError(t, r.Close(t.Context()))
	})
}

// A front end that refuses sixty targets is told of another one within two turns.
func TestATargetThatHasNotFailedIsTriedBeforeThoseThatHave(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"before", "after"} {
		synctest.Test(t, func(t *testing.T) {
			front := newFrontEnd(func(tag string, _ int) *http.Response {
				if strings.HasPrefix(tag, "refused") {
					return status(500)
				}
				return status(200)
			})
			r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
			for i := range 60 {
				r.Send(asidehttp.Target{Tag: fmt.Sprint("refused ", i)})
			}
			if order == "after" { // all of them have failed
				time.Sleep(14 * time.Minute)
			}
			began := time.Now()
			r.Send(asidehttp.Target{Tag: "healthy"})
			deadline := began.Add(62 * time.Second) // two turns
			for len(front.times("healthy")) == 0 && time.Now().Before(deadline) {
				time.Sleep(time.Second)
			}
			require.NotEmpty(t, front.times("healthy"), order)

			// Those that fail again and again do not hold up those that are delivered.
			for i := range 60 {
				r.Send(asidehttp.Target{Tag: fmt.Sprint("healthy ", i)})
				time.Sleep(time.Second)
			}
			time.Sleep(2 * time.Minute)
			for i := range 60 {
				require.NotEmpty(t, front.times(fmt.Sprint("healthy ", i)), "%s: %d", order, i)
			}
			ctx, cancel := contextThatHasEnded(t)
			defer cancel()
			_ = r.Close(ctx) // what is refused is lost
		})
	}
}

// One that fails is not forgotten because there are always others.
func TestATargetThatHasFailedIsTriedAgainThoughOthersWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(tag string, attempt int) *http.Response {
			if tag == "late" && attempt < 3 {
				return status(500)
			}
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		r.Send(asidehttp.Target{Tag: "late"})
		for i := range 1000 { // four hundred a second are delivered
			var list []asidehttp.Target
			for j := range 50 {
				list = append(list, asidehttp.Target{Tag: fmt.Sprint(i, " ", j)})
			}
			r.Send(list...)
			time.Sleep(100 * time.Millisecond)
		}
		require.Greater(t, r.Stats().Waiting, 5000, "there are always others")
		require.Len(t, front.times("late"), 3)
		time.Sleep(time.Hour)
		require.NoError(t, r.Close(t.Context()))
	})
}

// The queue is bounded in bytes too.
func TestAQueueOfLongNamesIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(string, int) *http.Response { return nil })
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, Timeout: 24 * time.Hour})
		before := heap()
		for i := range 4000 {
			key := fmt.Sprint("user:", i, strings.Repeat("x", 64<<10))
			if i%2 == 0 {
				r.Notify(aside.Invalidation{Keys: []string{key}})
			} else {
				r.Send(asidehttp.Target{Path: "/" + key})
			}
		}
		require.Less(t, heap()-before, int64(24<<20))
		require.Greater(t, r.Stats().Lost, uint64(1000), "of the paths, which are within nothing")
		ctx, cancel := contextThatHasEnded(t)
		defer cancel()
		require.Error(t, r.Close(ctx))
	})
}

func heap() int64 {
	var m runtime.MemStats
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What the cache calls by one name and by another never meets at the front end.
func TestATagIsNothingElseToAFrontEnd(t *testing.T) {
	t.Parallel()
	var seen []asidehttp.Target
	for _, i := range []aside.Invalidation{
		{All: true}, {Category: "models"}, {Category: "key"}, {Category: "tag"}, {Category: "tags"}, {Category: "category"}, {Keys: []string{"models", "models:all", "category:models", "tag:x", "all"}},
		{Tags: []string{"all", "models", "category:models", "tag:x", "tags", "models:all", "key:models:all", "key:models"}},
	} {
		for _, target := range asidehttp.Tags(i) {
			target.Within = ""
			require.False(t, slices.Contains(seen, target), target.Tag)
			seen = append(seen, target)
		}
	}
}

func contextThatHasEnded(t testing.TB) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, cancel
}

// slowLog takes a minute for each line.
type slowLog struct{}

func (s *slowLog) Write(p []byte) (int, error) {
	time.Sleep(time.Minute)
	return len(p), nil
}

func (s *slowLog) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(s, nil)) }

// Targets that fail again and again, though others are delivered, do not have the others wait.
func TestATargetThatFailsAloneHoldsUpNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(tag string, _ int) *http.Response {
			if strings.HasPrefix(tag, "refused") {
				return status(500)
			}
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, GiveUpAfter: 10 * time.Hour})
		for i := range 60 {
			r.Send(asidehttp.Target{Tag: fmt.Sprint("refused ", i)})
			r.Send(asidehttp.Target{Tag: fmt.Sprint("first ", i)})
			time.Sleep(2 * time.Second)
		}
		var slow int
		for i := range 300 {
			tag := fmt.Sprint("healthy ", i)
			began := time.Now()
			r.Send(asidehttp.Target{Tag: tag})
			time.Sleep(time.Second)
			times := front.times(tag)
			if len(times) == 0 || times[0].Sub(began) > 50*time.Millisecond {
				slow++ // the first ones may be: of the last few that were sent, all have failed
			}
		}
		require.Less(t, slow, 10)
		require.EqualValues(t, 360, r.Stats().Delivered)
		ctx, cancel := contextThatHasEnded(t)
		defer cancel()
		require.Error(t, r.Close(ctx))
	})
}

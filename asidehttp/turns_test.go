package asidehttp_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// The front end refuses all that one tenant has it asked for, a thousand targets. Another tenant's target waits for a few requests, and
// not for all of those: whether it was never tried, or has failed once, and whether theirs were tried already.
func TestATenantThatIsRefusedDoesNotHoldUpAnother(t *testing.T) {
	t.Parallel()
	const refused = 1000
	for _, theirs := range []string{"untried", "tried"} {
		for _, ours := range []string{"untried", "tried"} {
			t.Run("theirs "+theirs+", ours "+ours, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					requests, since, took := 0, 0, 0 // since ours could be sent, and until it was; guarded by the lock of front
					var due time.Time                // when ours had backed off
					front := newFrontEnd(func(tag string, attempt int) *http.Response {
						requests++
						if tag == "ours" && (ours == "untried" || attempt > 1) {
							took = requests - since
							return status(200)
						}
						switch {
						case tag == "ours":
							due = time.Now().Add(time.Second)
						case !due.IsZero() && time.Now().Before(due):
							since = requests
						}
						return status(500)
					})
					r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}, GiveUpAfter: 1000 * time.Hour})
					defer func() {
						ctx, cancel := contextThatHasEnded(t)
						defer cancel()
						_ = r.Close(ctx) // what is refused is lost
					}()
					send := func(n int) {
						for i := range refused / 2 {
							r.Send(asidehttp.Target{Tag: fmt.Sprint("theirs ", n+i), Within: "them"})
						}
					}
					send(0)
					if theirs == "tried" {
						send(refused / 2)
						time.Sleep(24 * time.Hour)
						require.EqualValues(t, refused, r.Stats().Waiting)
					}
					front.mu.Lock()
					since = requests
					front.mu.Unlock()
					r.Send(asidehttp.Target{Tag: "ours", Within: "us"})
					if theirs == "untried" {
						send(refused / 2) // so that ours is neither the oldest nor the newest
					}
					eventuallyInFakeTime(t, "ours is delivered", func() bool { return r.Stats().Delivered == 1 })
					front.mu.Lock()
					n := took
					front.mu.Unlock()
					t.Logf("after %d requests", n)
					require.LessOrEqual(t, n, 10)
					require.EqualValues(t, refused, r.Stats().Waiting, "nothing else is lost")
				})
			})
		}
	}
}

// eventuallyInFakeTime waits a day at most.
func eventuallyInFakeTime(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(24 * time.Hour); !holds(); time.Sleep(100 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), what)
	}
}

// While the front end takes everything, a target does not wait for the thousands of another scope that came before it.
func TestScopesHaveTheirTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var order []string
		front := newFrontEnd(func(tag string, _ int) *http.Response {
			order = append(order, tag)
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		defer func() { require.NoError(t, r.Close(t.Context())) }()
		for i := range 5000 {
			r.Send(asidehttp.Target{Tag: fmt.Sprint("key:user:", i), Within: "category:user"})
		}
		for i := range 5 {
			r.Send(asidehttp.Target{Tag: fmt.Sprint("key:models:", i), Within: "category:models"}, asidehttp.Target{Path: fmt.Sprint("/", i)})
		}
		time.Sleep(time.Minute)
		require.EqualValues(t, 5010, r.Stats().Delivered)
		others := 0
		for _, tag := range order[:20] {
			if !strings.HasPrefix(tag, "key:user:") {
				others++
			}
		}
		require.Equal(t, 10, others, "%v", order[:20])
	})
}

// untilDelivered is how long a target of one caller waits, while the front end refuses all that another one has it asked for. The latter's
// are there before it and behind it, and more come each second, more times: so it is neither the oldest nor the newest.
func untilDelivered(t *testing.T, before, behind, more int) (took time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(tag string, _ int) *http.Response {
			if strings.HasPrefix(tag, "key:user") {
				return status(500)
			}
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		r.Notify(aside.Invalidation{Keys: madeUp("user", 0, before)})
		r.Notify(aside.Invalidation{Keys: []string{"sessions:1"}})
		began := time.Now()
		for i := 0; len(front.times("key:sessions:1")) == 0 && time.Since(began) < 6*time.Hour; i++ {
			if i <= more {
				r.Notify(aside.Invalidation{Keys: madeUp("user", before+i*behind, behind)})
			}
			time.Sleep(time.Second)
		}
		took = time.Since(began)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ctx)
	})
	return took
}

func TestATargetInTheMiddleIsDelivered(t *testing.T) {
	t.Parallel()
	require.Less(t, untilDelivered(t, 60, 60, 0), 2*time.Minute)
}

func TestATargetBesideAStreamOfRefusedOnesIsDelivered(t *testing.T) {
	t.Parallel()
	require.Less(t, untilDelivered(t, 5000, 1000, 3), 15*time.Minute, "GiveUpAfter is over, and it was not tried once")
}

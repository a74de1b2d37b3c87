package asidehttp_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// A front end refuses what one caller makes up, and takes what another one sends. The other one's target waits in the middle: neither
// the oldest nor the newest.
//
//  1. One caller has sixty targets queued that the front end answers with 500.
//  2. Another one has his queued.
//  3. The first one sends sixty more.
func TestReviewATargetInTheMiddleIsDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(tag string, _ int) *http.Response {
			if strings.HasPrefix(tag, "key:user") {
				return status(500)
			}
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		r.Notify(aside.Invalidation{Keys: madeUp("user", 0, 60)})
		r.Notify(aside.Invalidation{Keys: []string{"sessions:1"}})
		r.Notify(aside.Invalidation{Keys: madeUp("user", 60, 60)})
		began := time.Now()
		for len(front.times("key:sessions:1")) == 0 && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
		}
		took := time.Since(began)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ctx)
		require.Less(t, took, 2*time.Minute)
	})
}

// The same, while the first caller goes on at the rate limit with a thousand names each.
func TestReviewATargetBesideAStreamOfRefusedOnesIsDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		front := newFrontEnd(func(tag string, _ int) *http.Response {
			if strings.HasPrefix(tag, "key:user") {
				return status(500)
			}
			return status(200)
		})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: front}})
		r.Notify(aside.Invalidation{Keys: madeUp("user", 0, 5000)})
		r.Notify(aside.Invalidation{Keys: []string{"sessions:1"}})
		began := time.Now()
		for i := 0; len(front.times("key:sessions:1")) == 0 && time.Since(began) < 6*time.Hour; i++ {
			if i < 4 {
				r.Notify(aside.Invalidation{Keys: madeUp("user", 5000+i*1000, 1000)})
			}
			time.Sleep(time.Second)
		}
		took := time.Since(began)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ctx)
		require.Less(t, took, 15*time.Minute, "GiveUpAfter is over, and it was not tried once")
	})
}

package asidehttp_test

import (
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
)

// The handlers of one cache have limits of their own. A client that asks both gets no more out of the narrow one than its options say, and
// is not kept from it for longer than they say.
//
//  1. The client uses up what the narrow handler allows.
//  2. It asks the wide one, by whose rate all that it has taken comes back at once.
//  3. The narrow one allows as much again.
func TestAWideHandlerDoesNotWidenANarrowOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		o := options(io.Discard)
		o.Rate, o.Burst = 1, 10
		narrow := asidehttp.Handler(c, o)
		o.Rate, o.Burst = 1000, 1000
		wide := asidehttp.Metrics(c, o)
		served := 0
		for range 100 { // ten seconds
			for range 20 {
				if ask(narrow, "GET", "/?metrics=true", "", "Bearer "+keyAll).Code == 200 {
					served++
				}
			}
			time.Sleep(50 * time.Millisecond)
			ask(wide, "GET", "/", "", "Bearer "+keyAll)
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("%d requests in ten seconds, where a rate of 1 and a burst of 10 allow 20", served)
		require.LessOrEqual(t, served, 20)
	})
}

// The other way round: what a client has asked of the wide handler does not lock it out of the narrow one for minutes.
func TestAWideHandlerDoesNotLockOutOfANarrowOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer c.Close()
		o := options(io.Discard)
		o.Rate, o.Burst = 1000, 1000
		wide := asidehttp.Metrics(c, o)
		o.Rate, o.Burst = 1, 10
		narrow := asidehttp.Handler(c, o)
		for range 500 {
			require.Equal(t, 200, ask(wide, "GET", "/", "", "Bearer "+keyAll).Code)
		}
		time.Sleep(11 * time.Second) // a whole burst of the narrow one, at its own rate
		require.Equal(t, 200, ask(narrow, "GET", "/?metrics=true", "", "Bearer "+keyAll).Code)
	})
}

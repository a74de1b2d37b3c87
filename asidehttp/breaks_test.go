package asidehttp_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidehttp"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// Hazard 121: keys without ScopeAll do not have everything invalidated where the connection breaks twice.
//
//  1. The connection breaks. Two keys fill what they may of the journal.
//  2. The connection comes back, and all of it is sent and confirmed, before the record of that is written.
//  3. The connection breaks again, and comes back: its record knows of none of that, and all of it is remembered.
func TestAConnectionThatBreaksTwiceInvalidatesOnlyWhatWasNamed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	told := make(chan aside.Invalidation, 1<<20)
	c := connectedTo(t, proxy.Addr(), func(i aside.Invalidation) { told <- i })
	bystander := connectedTo(t, server.Addr(), nil)
	keep := aside.TTL.ModelsAll.Key("kept")
	asidetest.Stored(t, bystander, keep, "v")
	h := asidehttp.AdminHandler(c, asidehttp.Options{
		Keys: []asidehttp.Key{
			{Name: "one", Secret: aside.NewSecret(keyChange), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
			{Name: "two", Secret: aside.NewSecret(keyOld), Scopes: []asidehttp.Scope{asidehttp.ScopeInvalidate}},
		}, Logger: slog.New(slog.DiscardHandler), Rate: -1,
	})
	post := func(key string, from int) int {
		return ask(h, "POST", "/", bodyOf(t, "keys", madeUp("user", from, 1000)), "Bearer "+key).Code
	}
	// Some of what is invalidated while all is well, and written down.
	for i := range 15 {
		require.Equal(t, 200, post(keyChange, 1_000_000+1000*i))
		require.Len(t, (<-told).Keys, 1000)
	}
	mark := func() string {
		for _, name := range server.MustDo(t, "KEYS", "%mark:*").([]any) {
			v, _ := server.Do("GET", fmt.Sprint(name))
			if fmt.Sprint(v) >= "15000" {
				return fmt.Sprint(v)
			}
		}
		return ""
	}
	eventually(t, "it is written down", func() bool { return mark() != "" })

	proxy.Refuse(true)
	proxy.CloseConnections()
	eventually(t, "degraded", func() bool { return c.Health().State == aside.StateDegraded })
	accepted := 0
	for i := range 40 {
		for _, key := range []string{keyChange, keyOld} {
			if post(key, 100_000*(1+len(key))+1000*i) == 200 {
				accepted++
			}
		}
	}
	t.Log(accepted, "thousand accepted while it is away")
	gate := proxy.HoldRequests(func(args []string) bool { // what is written down is late
		return len(args) > 3 && strings.HasPrefix(args[3], "%mark:")
	})
	proxy.Refuse(false)
	patience := 2 * time.Second
	for n, since := 0, time.Now(); n < accepted*1000; {
		select {
		case i := <-told:
			n += len(i.Keys)
			require.False(t, i.All)
			since = time.Now()
		case <-time.After(patience):
			require.Less(t, time.Since(since), 3*time.Minute, "told of %d alone", n)
			if gate.Held() > 0 { // on a slow machine the record comes earlier, and holds up what is behind it: so the connection breaks once more
				proxy.CloseConnections()
				patience = min(2*patience, time.Minute) // it also takes longer to be there again
			}
		}
	}
	t.Log("held:", gate.Held(), "mark:", mark())
	proxy.CloseConnections()
	gate.Release()
	again := 0
	defer func() { t.Log(again, "sent again; mark:", mark()) }()
	deadline := time.After(10 * time.Second)
	for over := false; !over; {
		select {
		case i := <-told:
			again += len(i.Keys)
			require.False(t, i.All, "everything was invalidated on behalf of keys that may not")
		case <-deadline:
			over = true
		}
	}
	_, err := aside.Get[string](context.Background(), bystander, keep)
	require.NoError(t, err)
}

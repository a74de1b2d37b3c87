// Package fleet has several operating-system processes ask for one key, at a steady rate, on one Redis, and tells how often that was loaded,
// who had to wait, and how old the values were that callers got. make freshness prints that, and internal/tests/freshness holds it to what
// is promised.
package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside"
)

// A Strategy is what a policy does about expiries.
type Strategy struct {
	Name         string
	Stale        time.Duration
	RefreshAhead float64
}

// env has a member as JSON.
const env = "ASIDE_FLEET_MEMBER"

// A member is one process of a fleet.
type member struct {
	Addr, Username, Password string
	Single                   bool
	Strategy                 Strategy
	TTL, Load                time.Duration
	LeaseTTL, OpTimeout      time.Duration // 0: the defaults
	Every                    time.Duration // from one call to the next
}

// A value knows the load that it is from.
type value struct{ Began int64 }

// stallFrom is how late the clock of a process may go off before that is told: it did not get a processor.
const stallFrom = 20 * time.Millisecond

// Member is the whole of a member's process. It asks from the first byte of its standard input until the end of that. A line of its standard
// output is an event; times are in nanoseconds of the clock that all processes of a host share:
//
//	ready
//	load BEGAN                       a load begins
//	loaded BEGAN ENDED
//	call BEGAN TOOK LOAD STATUS      the call has got the value of the load that began then
//	failed BEGAN ERROR
//	stall BEGAN TOOK                 the process did not run
func Member() {
	var m member
	if err := json.Unmarshal([]byte(os.Getenv(env)), &m); err != nil {
		panic(err)
	}
	policy := aside.Policy{Name: "items", Category: "items", TTL: m.TTL, Stale: m.Strategy.Stale, RefreshAhead: m.Strategy.RefreshAhead}
	c, err := aside.New(aside.Options{
		Redis:    rueidis.ClientOption{InitAddress: []string{m.Addr}, Username: m.Username, Password: m.Password, ForceSingleClient: m.Single},
		Policies: []aside.Policy{policy}, LeaseTTL: m.LeaseTTL, OpTimeout: m.OpTimeout, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	for c.Health().State != aside.StateConnected {
		time.Sleep(time.Millisecond)
	}
	var mu sync.Mutex
	tell := func(words ...any) {
		line := fmt.Appendln(nil, words...)
		mu.Lock()
		defer mu.Unlock()
		_, _ = os.Stdout.Write(line)
	}
	load := func(ctx context.Context) (value, error) {
		v := value{now()}
		tell("load", v.Began)
		select {
		case <-time.After(m.Load):
		case <-ctx.Done():
			return v, ctx.Err()
		}
		tell("loaded", v.Began, now())
		return v, nil
	}
	key := policy.Key("one")
	ask := func() {
		began := now()
		r, err := aside.Lookup(context.Background(), c, key, load)
		if err != nil {
			tell("failed", began, err)
			return
		}
		tell("call", began, now()-began, r.Value.Began, r.Status)
	}

	tell("ready")
	if _, err := os.Stdin.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		return
	}
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	var calls sync.WaitGroup
	defer calls.Wait()
	calls.Go(func() { watch(over, tell) })
	next := time.Now().Add(rand.N(m.Every))
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Until(next)):
			next = next.Add(m.Every)
			calls.Go(ask)
		}
	}
}

// watch tells when the process did not run.
func watch(over <-chan struct{}, tell func(...any)) {
	const every = 5 * time.Millisecond
	for {
		began := now()
		select {
		case <-over:
			return
		case <-time.After(every):
			if late := now() - began - int64(every); late > int64(stallFrom) {
				tell("stall", began, late+int64(every))
			}
		}
	}
}

func now() int64 { return time.Now().UnixNano() }

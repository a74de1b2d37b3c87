package flight

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// No caller is ever cancelled for another's sake, although callers leave at the very moment at which others join.
func TestWhoJoinsAsTheLastOneLeavesIsServed(t *testing.T) {
	t.Parallel()
	var g group
	rounds := 20_000
	if testing.Short() {
		rounds = 2000
	}
	var joined, alone int
	mayTake := time.Now().Add(2 * time.Minute)
	for n := 0; n < rounds || (joined == 0 || alone == 0) && time.Now().Before(mayTake); n++ { // who is first is up to the scheduler
		ctx, leave := context.WithCancel(t.Context())
		release := make(chan struct{})
		load := func(c *call) func(context.Context) {
			return func(ctx context.Context) {
				select {
				case <-release:
					c.Resolve(42, nil)
				case <-ctx.Done():
					c.Resolve(0, context.Cause(ctx))
				}
			}
		}
		first := lead(t, &g, "k")[0]
		g.Run(t.Context(), limit, load(first), first)
		var both sync.WaitGroup
		both.Go(func() { first.Wait(ctx) })
		both.Go(leave)
		if n%2 == 0 {
			runtime.Gosched()
		}
		second, leads := g.Join("k")
		if leads {
			alone++
			g.Run(t.Context(), limit, load(second), second)
		} else {
			joined++
		}
		both.Wait()
		close(release)
		val, err := second.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, 42, val)
		second.Forget()
	}
	t.Logf("%d joined in time, %d came too late", joined, alone)
	require.Positive(t, joined, "the race was never won")
	require.Positive(t, alone, "the race was never lost")
	require.NoError(t, g.Close(t.Context(), errClosed))
}

func TestCloseRacesWithJoinAndRun(t *testing.T) {
	t.Parallel()
	rounds := 5000
	if testing.Short() {
		rounds = 500
	}
	var before, after, between int
	mayTake := time.Now().Add(2 * time.Minute)
	for n := 0; n < rounds || (after == 0 || before+between == 0) && time.Now().Before(mayTake); n++ { // who is first is up to the scheduler
		var g group
		start := make(chan struct{})
		var ran atomic.Bool
		var leads bool
		var err error
		var both sync.WaitGroup
		both.Go(func() {
			<-start
			var c *call
			if c, leads = g.Join("k"); leads {
				runtime.Gosched()
				g.Run(t.Context(), limit, func(ctx context.Context) {
					ran.Store(true)
					<-ctx.Done()
				}, c)
			}
			_, err = c.Wait(t.Context())
		})
		var landed bool
		both.Go(func() {
			<-start
			runtime.Gosched()
			landed = g.Close(t.Context(), errClosed) == nil
		})
		close(start)
		both.Wait()
		require.Equal(t, errClosed, err)
		require.True(t, landed)
		switch {
		case !leads:
			before++
		case ran.Load():
			after++
		default:
			between++
		}
		empty(t, &g)
	}
	t.Logf("Close came %d times before Join, %d times between it and Run, %d times after", before, between, after)
	require.Positive(t, after)
	require.Positive(t, before+between)
}

const stressKeys = 6

// A stressValue says by itself whether the one who gets it should have.
type stressValue struct {
	key     int
	version int64 // of the key, when the load began
}

// stress is what goes on around a group while TestEverythingAtOnce runs.
type stress struct {
	g    Group[int, stressValue]
	keys [stressKeys]atomic.Int64 // the versions of the keys' sources
	// What happened, so that the test knows that it was worth its while.
	led, ran, landed, joined, values, cancelled, timedOut, panicked, exited, unresolved, failed, changed, guarded, peeked, abandoned atomic.Int64
}

var errStress = errors.New("the source is down")

// load is a load of several keys, in a random order, which ends in any way in which a load can end.
func (s *stress) load(ctx context.Context, r *rand.Rand, calls []*Call[int, stressValue]) {
	s.ran.Add(1)
	defer s.landed.Add(1)
	values := make([]stressValue, len(calls))
	for i, c := range calls {
		source := &s.keys[c.key]
		begun := source.Load()
		c.JoinWhile(condition(func() bool {
			up := source.Load() == begun
			if !up {
				s.guarded.Add(1)
			}
			return up
		}))
		values[i] = stressValue{c.key, source.Load()} // after that: who came before the guard gets what is read only now
	}
	end := r.IntN(20)
	for _, i := range r.Perm(len(calls)) {
		for range r.IntN(20) {
			runtime.Gosched()
		}
		if end < 8 && r.IntN(3) == 0 {
			switch end {
			case 0:
				panic(errStress)
			case 1:
				runtime.Goexit()
			case 2:
				return
			case 3: // a load that takes its time, unless it is told to stop
				select {
				case <-ctx.Done():
				case <-time.After(time.Millisecond):
				}
			case 4: // one that does not listen either
				<-ctx.Done()
			}
		}
		switch {
		case ctx.Err() != nil:
			if errors.Is(context.Cause(ctx), errAbandoned) {
				s.abandoned.Add(1)
			}
			calls[i].Resolve(stressValue{}, context.Cause(ctx))
		case end == 5:
			calls[i].Resolve(stressValue{}, errStress)
		default:
			calls[i].Resolve(values[i], nil)
		}
	}
	runtime.Gosched() // store what was loaded
}

// call is a caller of one key or several, who may have little patience.
func (s *stress) call(t *testing.T, r *rand.Rand) {
	type share struct {
		c     *Call[int, stressValue]
		least int64 // the version of the source when the caller came
	}
	var shares []share
	var mine []*Call[int, stressValue]
	for _, key := range r.Perm(stressKeys)[:1+r.IntN(3)] {
		least := s.keys[key].Load()
		if v, ok := s.g.Peek(key); ok {
			s.peeked.Add(1)
			s.check(t, v, key, least)
		}
		join := s.g.Join
		if r.IntN(8) == 0 {
			join = s.g.JoinNew
		}
		c, leads := join(key)
		if leads {
			mine = append(mine, c)
		} else {
			s.joined.Add(1)
		}
		shares = append(shares, share{c, least})
	}
	ctx, cancel := context.Background(), func() {}
	patient := r.IntN(2) == 0
	if !patient {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(100))*time.Microsecond)
	}
	defer cancel()
	if len(mine) > 0 {
		s.led.Add(1)
		timeout := 20 * time.Millisecond // some loads wait for it
		if r.IntN(8) == 0 {
			timeout = time.Duration(r.IntN(100)) * time.Microsecond
		}
		seed := r.Uint64()
		s.g.Run(ctx, timeout, func(ctx context.Context) { s.load(ctx, rand.New(rand.NewPCG(seed, 0)), mine) }, mine...)
	}
	for _, sh := range shares {
		v, err := sh.c.Wait(ctx)
		var p *PanicError
		switch {
		case err == nil:
			s.values.Add(1)
			s.check(t, v, sh.c.key, sh.least)
		case !patient && err == ctx.Err():
			s.cancelled.Add(1)
		case err == ErrTimeout:
			s.timedOut.Add(1)
		case err == ErrGoexit:
			s.exited.Add(1)
		case err == ErrUnresolved:
			s.unresolved.Add(1)
		case err == errStress:
			s.failed.Add(1)
		case errors.As(err, &p):
			s.panicked.Add(1)
		default: // above all not errAbandoned: who still waits never gets what those who left brought about
			t.Errorf("Wait returned %v", err)
		}
	}
}

func (s *stress) check(t *testing.T, v stressValue, key int, least int64) {
	if v.key != key {
		t.Errorf("key %d got the value of key %d", key, v.key)
	}
	if v.version < least {
		t.Errorf("a caller that came at version %d shares a load of version %d", least, v.version)
	}
}

// change changes the sources of some keys, which lowers the guards of the loads that may have missed it.
func (s *stress) change(r *rand.Rand) {
	s.changed.Add(1)
	first := r.IntN(stressKeys)
	last := first
	if r.IntN(4) == 0 {
		last = stressKeys - 1
	}
	for i := first; i <= last; i++ {
		s.keys[i].Add(1)
	}
}

// counts is what must have happened.
func (s *stress) counts() map[string]*atomic.Int64 {
	return map[string]*atomic.Int64{
		"flights": &s.led, "joined": &s.joined, "values": &s.values, "cancelled callers": &s.cancelled, "time-outs": &s.timedOut,
		"panics": &s.panicked, "exits": &s.exited, "unresolved": &s.unresolved, "failures": &s.failed, "changes": &s.changed, "guards that were down": &s.guarded,
		"peeked": &s.peeked, "abandoned": &s.abandoned,
	}
}

// complete reports whether each of it has.
func (s *stress) complete() bool {
	for _, n := range s.counts() {
		if n.Load() == 0 {
			return false
		}
	}
	return true
}

func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	rounds := 3000
	if testing.Short() {
		rounds = 500
	}
	var s stress
	var callers sync.WaitGroup
	mayTake := time.Now().Add(2 * time.Minute)
	for n := range 16 {
		callers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 1))
			for round := 0; round < rounds || !s.complete() && time.Now().Before(mayTake); round++ { // what comes first is up to the scheduler
				if r.IntN(6) == 0 {
					s.change(r)
				} else {
					s.call(t, r)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { callers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Minute):
		require.FailNow(t, "somebody waits for ever")
	}
	require.NoError(t, s.g.Close(t.Context(), errClosed))
	require.Equal(t, s.led.Load(), s.ran.Load(), "each flight runs once")
	require.Equal(t, s.ran.Load(), s.landed.Load(), "Close has waited for all of them")
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	require.Empty(t, s.g.calls)
	require.Empty(t, s.g.flights)
	for what, n := range s.counts() {
		t.Logf("%d %s", n.Load(), what)
		require.Positive(t, n.Load(), "%s: never happened", what)
	}
}

package redisstore

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A call that reads several large values one after the other has the time for all of them.
func TestWhatIsAddedToABudgetAddsUp(t *testing.T) {
	t.Parallel()
	s := &Store{}
	s.opTimeout = time.Second
	ctx, cancel := s.Budget(t.Context(), 0, 1)
	defer cancel()
	first, ok := ctx.Deadline()
	require.True(t, ok)
	for i, size := range []int64{bytesPerSecond, bytesPerSecond, 0} {
		more, cancel := s.More(ctx, size, 1)
		defer cancel()
		until, _ := more.Deadline()
		require.Equal(t, first.Add(time.Duration(min(i+1, 2))*time.Second), until)
	}
}

// Operations that nobody cancels, and whose time is up at about the same moment, share what ends them.
func TestBudgetsThatEndTogetherShareTheirEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Store{limits: limits{opTimeout: 160 * time.Millisecond, grace: grace{limit: 160 * time.Millisecond}}}
		s.grace.over.Store(true)
		type name struct{}
		began := time.Now()
		of := func(value string) context.Context {
			ctx, cancel := s.Budget(context.WithoutCancel(context.WithValue(t.Context(), name{}, value)), 0, 1)
			cancel() // it may be anybody's
			require.NoError(t, ctx.Err())
			require.Equal(t, value, ctx.Value(name{}))
			return ctx
		}
		first := of("first")
		time.Sleep(time.Millisecond)
		second := of("second")
		time.Sleep(20 * time.Millisecond)
		third := of("third")
		require.Equal(t, first.Done(), second.Done())
		require.NotEqual(t, first.Done(), third.Done())
		for n, ctx := range []context.Context{first, second, third} {
			asked := began.Add([]time.Duration{0, time.Millisecond, 21 * time.Millisecond}[n])
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			<-ctx.Done()
			require.GreaterOrEqual(t, time.Since(asked), 160*time.Millisecond)
			require.LessOrEqual(t, time.Since(asked), 170*time.Millisecond)
			require.Equal(t, context.DeadlineExceeded, ctx.Err())
			require.Equal(t, ErrBudget, context.Cause(ctx))
			require.Equal(t, ErrBudget, context.Cause(child))
			require.False(t, CallersOwn(ctx))
		}
		synctest.Wait()
		require.Empty(t, s.ends.at, "none that is over is remembered")
	})
}

// A budget for much ends late, and is mostly given back early. Were its end shared, it would stay until then, and keep the store.
func TestBudgetsForMuchLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Store{limits: limits{opTimeout: 50 * time.Millisecond, grace: grace{limit: 50 * time.Millisecond}}}
		s.grace.over.Store(true)
		for range 1000 { // loads of batches: the leases of one are renewed for as long as its largest values may take to be sent
			ctx, cancel := s.Budget(context.Background(), 1000*64<<20, 1000)
			require.NoError(t, ctx.Err())
			cancel()
			require.Equal(t, context.Canceled, ctx.Err())
			small, _ := s.Budget(context.Background(), 1<<10, 2)
			time.Sleep(10 * time.Millisecond)
			require.NoError(t, small.Err())
			synctest.Wait()
			s.ends.mu.Lock()
			shared := len(s.ends.at)
			s.ends.mu.Unlock()
			require.LessOrEqual(t, shared, 2*ticks)
		}
		time.Sleep(2 * s.opTimeout)
		synctest.Wait()
		require.Empty(t, s.ends.at)

		ctx, cancel := s.Budget(context.Background(), bytesPerSecond, 1)
		defer cancel()
		asked := time.Now()
		<-ctx.Done()
		require.Equal(t, 1050*time.Millisecond, time.Since(asked))
		require.Equal(t, ErrBudget, context.Cause(ctx))
	})
}

// tardy has a deadline that has passed, and ends a moment later, as a timer does.
type tardy struct{ context.Context }

func (tardy) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

func TestWhoseTheEndOfAContextWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Store{limits: limits{opTimeout: time.Second}}
		budget := func(ctx context.Context) context.Context {
			ctx, cancel := s.Budget(ctx, 0, 1)
			t.Cleanup(cancel)
			return ctx
		}
		within := func(d time.Duration) context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			t.Cleanup(cancel)
			return ctx
		}
		left, leave := context.WithCancel(t.Context())
		hurried, patient, leaving := budget(within(time.Millisecond)), budget(within(time.Minute)), budget(left)
		leave()
		require.True(t, CallersOwn(leaving))
		require.False(t, CallersOwn(hurried), "it has not ended")
		time.Sleep(time.Second)
		synctest.Wait()
		require.True(t, CallersOwn(hurried))
		require.Error(t, patient.Err())
		require.False(t, CallersOwn(patient))
		require.False(t, CallersOwn(context.Background()))

		for cause, own := range map[error]bool{ErrBudget: false, context.DeadlineExceeded: true} {
			ctx, end := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Millisecond, func() { end(cause) })
			require.Equal(t, own, CallersOwn(tardy{ctx}), "the connection's deadline struck before the context's timer")
		}
	})
}

func TestLargeValuesAreGivenMoreTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Store{limits: limits{grace: grace{limit: 50 * time.Millisecond}}}
		s.grace.over.Store(true)
		limit := func(size int64, keys int) time.Duration {
			ctx, cancel := s.Budget(t.Context(), size, keys)
			defer cancel()
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			return time.Until(deadline)
		}
		for size, want := range map[int64]time.Duration{0: 50 * time.Millisecond, -1: 50 * time.Millisecond, 32 << 20: 1050 * time.Millisecond, 64 << 20: 2050 * time.Millisecond} {
			require.Equal(t, want, limit(size, 1))
			require.Equal(t, want, limit(size, 0))
		}
		require.Equal(t, 1050*time.Millisecond, limit(0, 1+8192), "so are many keys")
		require.Equal(t, 2050*time.Millisecond, limit(32<<20, 1+8192))
		const years = 100 * 365 * 24 * time.Hour
		require.Greater(t, limit(math.MaxInt64, 1), years)
		require.Greater(t, limit(0, math.MaxInt), years)
		require.Greater(t, limit(math.MaxInt64, math.MaxInt), years)
	})
}

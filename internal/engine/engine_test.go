package engine

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/stats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errClosed = errors.New("closed")

// open makes an engine with a Redis at an address, "" for none.
func open(t *testing.T, addr string, change ...func(*Options)) *Engine {
	t.Helper()
	o := Options{
		OpTimeout: inTime, LeaseTTL: 5 * time.Second, MaxEntries: 1000, MaxBytes: 1 << 20, MaxValueBytes: 1 << 20, CompressFrom: 1 << 10,
		ChunkFrom: 256 << 10, MaxLoads: 10, MaxQueuedLoads: 10, Backoff: 100 * time.Millisecond, MaxBackoff: time.Second,
		Logger: slog.New(slog.DiscardHandler), Counters: new(stats.Registry),
		Categories: func() []string { return []string{"items"} }, InUse: func() []string { return nil },
		NameOfOwner: func(uint64, string) string { return "another" }, ErrClosed: errClosed,
		ErrorOf: func(err error, _ string) error { return err },
	}
	if addr != "" {
		o.Redis = rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true}
	}
	for _, f := range change {
		f(&o)
	}
	e := Open(o)
	t.Cleanup(func() {
		if !e.Closed() {
			e.Close(context.Background())
		}
	})
	return e
}

// connected is open of an engine that has its connection.
func connected(t *testing.T, addr string, change ...func(*Options)) *Engine {
	t.Helper()
	e := open(t, addr, change...)
	require.Eventually(t, e.Store.Up, inTime, time.Millisecond)
	return e
}

// items is a policy of its own each time.
func items() *Policy {
	p := &Policy{
		Name: "items", Category: "items", Tags: []string{keyspace.All, keyspace.CategoryTag("items")}, TTL: time.Hour,
		DegradedTTL: 30 * time.Second, NegativeTTL: 30 * time.Second, LoadTimeout: time.Minute, Counters: new(stats.Counters),
	}
	p.Holder = p
	return p
}

func requestOf(p *Policy, key string) Request {
	return Request{Key: "items:" + key, Policy: p, Type: reflect.TypeFor[string](), TTL: p.TTL, Tags: p.Tags}
}

func given(v string) Loaded { return Loaded{Value: &v} }

func loads(v string) LoadFunc {
	return func(_ context.Context, indexes []int, found func(int, Loaded)) {
		for _, i := range indexes {
			found(i, given(v))
		}
	}
}

func valueOf(t *testing.T, out Outcome, err error) string {
	t.Helper()
	require.NoError(t, err)
	return *out.Value.(*string)
}

func TestACallIsAnsweredByALoadAndThenFromMemory(t *testing.T) {
	t.Parallel()
	e, p := open(t, ""), items()
	r := requestOf(p, "a")
	_, _, ok := e.Peek(t.Context(), r)
	require.False(t, ok)
	out, err := answer(t, e, r, loads("v"))
	require.Equal(t, "v", valueOf(t, out, err))
	require.Equal(t, StatusMiss, out.Status)
	out, err = answer(t, e, r, loads("another"))
	require.Equal(t, "v", valueOf(t, out, err))
	require.Equal(t, StatusHit, out.Status)
	require.NoError(t, e.Set(t.Context(), r, given("set")))
	out, here, ok := e.Peek(t.Context(), r)
	require.True(t, ok)
	require.True(t, here)
	require.Equal(t, "set", valueOf(t, out, nil))
}

func TestManyRequestsAreAnsweredByOneCallOfTheLoader(t *testing.T) {
	t.Parallel()
	e, p := open(t, ""), items()
	calls := 0
	var requests []Request
	for _, key := range []string{"a", "b", "a", "c"} {
		requests = append(requests, requestOf(p, key))
	}
	answers := make(map[int]string)
	e.AnswerMany(t.Context(), requests, 0, func(_ context.Context, indexes []int, found func(int, Loaded)) {
		calls++
		require.Equal(t, []int{0, 1, 3}, indexes)
		for _, i := range indexes {
			found(i, given(requests[i].Key))
		}
	}, func(index int, out Outcome, _ bool, err error) { answers[index] = valueOf(t, out, err) })
	require.Equal(t, 1, calls)
	require.Equal(t, map[int]string{0: "items:a", 1: "items:b", 2: "items:a", 3: "items:c"}, answers)
}

func TestWhatIsNotFoundIsKeptWithItsText(t *testing.T) {
	t.Parallel()
	e, p := open(t, ""), items()
	said := errors.New("no such item")
	load := func(_ context.Context, indexes []int, found func(int, Loaded)) {
		found(indexes[0], Loaded{NotFound: true, Err: said})
	}
	for _, status := range []Status{StatusMiss, StatusHit} {
		out, err := answer(t, e, requestOf(p, "a"), load)
		require.NoError(t, err)
		require.Nil(t, out.Value)
		require.Equal(t, said, out.Absent)
		require.Equal(t, status, out.Status)
	}
}

func TestAnEngineThatIsClosedEndsItsCalls(t *testing.T) {
	t.Parallel()
	e, p := open(t, ""), items()
	begun := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		_, err := answer(t, e, requestOf(p, "a"), func(ctx context.Context, _ []int, _ func(int, Loaded)) {
			close(begun)
			<-ctx.Done()
		})
		failed <- err
	}()
	<-begun
	e.Close(context.Background())
	require.Equal(t, errClosed, <-failed)
	require.Equal(t, errClosed, e.Set(t.Context(), requestOf(p, "a"), given("v")))
}

func TestALoadThatNobodyJoinsIsStoredNowhere(t *testing.T) {
	t.Parallel()
	e, p := open(t, ""), items()
	r := requestOf(p, "a")
	over := make(chan struct{})
	var got any
	require.NoError(t, e.LoadAlone(t.Context(), r, func(ctx context.Context, indexes []int, found func(int, Loaded)) {
		require.True(t, IsAlone(ctx))
		found(indexes[0], given("alone"))
	}, func(value any) error { got = value; return nil }, func() { close(over) }))
	<-over
	require.Equal(t, "alone", *got.(*string))
	_, _, ok := e.Peek(t.Context(), r)
	require.False(t, ok)

	same, err := e.Same(r, got, given("alone").Value, nil)
	require.NoError(t, err)
	require.True(t, same)
	same, err = e.Same(r, got, given("other").Value, func(any, any) bool { return false })
	require.NoError(t, err)
	require.False(t, same)
	same, err = e.Same(r, nil, got, nil)
	require.NoError(t, err)
	require.False(t, same)
}

func TestTheErrorsOfAnEngineHaveCodes(t *testing.T) {
	t.Parallel()
	e, p := open(t, "", func(o *Options) { o.MaxLoads, o.MaxQueuedLoads = 1, 0 }), items()
	begun, end := make(chan struct{}), make(chan struct{})
	defer close(end)
	go answer(t, e, requestOf(p, "a"), func(ctx context.Context, _ []int, _ func(int, Loaded)) {
		close(begun)
		<-end
	})
	<-begun
	_, err := answer(t, e, requestOf(p, "b"), loads("v"))
	var own *Error
	require.ErrorAs(t, err, &own)
	require.Equal(t, CodeOverloaded, own.Code)
	require.Equal(t, "items:b", own.Key)

	other := open(t, "")
	_, err = answer(t, other, requestOf(p, "a"), func(ctx context.Context, _ []int, found func(int, Loaded)) {
		found(0, Loaded{Err: other.Check(ctx, "items:a")})
	})
	require.ErrorAs(t, err, &own)
	require.Equal(t, CodeReentrant, own.Code)
}

// answer answers a request as the package above does.
func answer(t *testing.T, e *Engine, r Request, load LoadFunc) (Outcome, error) {
	t.Helper()
	if out, ok := e.LookAgeing(r.Key, &r); ok {
		return out, nil
	}
	out, unanswered, ok := e.Look(r)
	if ok {
		return out, nil
	}
	return e.Answer(t.Context(), unanswered, load)
}

package invalidate

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/glob"
	"github.com/gatewayz/aside/internal/journal"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
)

// put keeps a value in memory that rests on the generation of a tag.
func (f *fixture) put(t *testing.T, key, tag string) {
	t.Helper()
	generation := f.memory.Generation(tag)
	if generation == nil {
		fence := f.memory.Fence(tag, nil)
		defer fence.End()
		generation = f.memory.LearnFirst(fence, 1)
	}
	require.NotNil(t, generation)
	f.memory.Put(key, &near.Entry{Value: new(string), Until: f.clock.Now() + int64(time.Hour), Scope: &near.Scope{Validities: generation.Validities(nil)}})
	require.NotNil(t, f.memory.Get(key))
}

func (f *fixture) heldBack(key string) bool {
	left, _ := f.backoff.HeldBack(key, 1)
	return left > 0
}

func parsed(t *testing.T, text string) glob.Glob {
	t.Helper()
	g, err := glob.Parse(text)
	require.NoError(t, err)
	return g
}

// next is the next event without its time.
func next(t *testing.T, events <-chan Event) Event {
	t.Helper()
	select {
	case e := <-events:
		require.False(t, e.At.IsZero())
		e.At = time.Time{}
		return e
	case <-time.After(bound):
		t.Fatal("no event")
		return Event{}
	}
}

func TestInMemoryAnInvalidationIsConfirmedAtOnce(t *testing.T) {
	t.Parallel()
	events := make(chan Event, 10)
	f := inMemory(t, func(e Event) { events <- e })
	f.put(t, "items:a", "a tag")
	for _, key := range []string{"items:a", "items:b"} {
		for range 2 {
			f.backoff.Note(key, 1, f.backoff.Last(), func() error { return errors.New("down") })
		}
		require.True(t, f.heldBack(key))
	}
	ticket, errs := f.Remove(t.Context(), "", []string{"items:a", "items:missing"}, nil)
	require.Nil(t, errs)
	require.True(t, ticket.Confirmed)
	require.EqualValues(t, 1, ticket.Removed)
	require.NoError(t, ticket.Wait(t.Context()))
	require.NoError(t, ticket.Replicated(t.Context(), 1))
	require.Nil(t, f.memory.Get("items:a"))
	require.False(t, f.heldBack("items:a"))
	require.True(t, f.heldBack("items:b"))
	require.Equal(t, Event{Keys: []string{"items:a", "items:missing"}}, next(t, events))

	f.put(t, "items:a", "a tag")
	f.put(t, "items:b", "a tag")
	ticket = f.Retire(t.Context(), "", Event{Tags: []string{"tag"}}, "a tag")
	require.True(t, ticket.Confirmed)
	removed, err := ticket.WaitCleanup(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, removed)
	require.Equal(t, Event{Tags: []string{"tag"}}, next(t, events))

	f.put(t, "items:a", "a tag")
	f.put(t, "other:b", "a tag")
	ticket = f.Match(t.Context(), "", "items:*", parsed(t, "items:*"), func() {})
	require.True(t, ticket.Confirmed)
	removed, err = ticket.WaitCleanup(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, removed)
	require.NotNil(t, f.memory.Get("other:b"))
	require.False(t, f.heldBack("items:b"))
	require.Equal(t, Event{Pattern: "items:*"}, next(t, events))

	require.NoError(t, f.Discard(t.Context(), "other:b", nil))
	require.Nil(t, f.memory.Get("other:b"))
	f.close()
	require.Empty(t, events, "that is no invalidation")
}

// What Redis refuses is in quarantine, and is sent again until it is permitted.
func TestWhatRedisHasNotConfirmedIsSentAgain(t *testing.T) {
	t.Parallel()
	events := make(chan Event, 10)
	f, server, _ := onRedis(t, func(e Event) { events <- e })
	server.MustDo(t, "ACL", "SETUSER", "default", "resetkeys", "%R~*", "~{*", "~%mark*", "~%probe*", "~%watch*", "~%tags")
	tickets := make(map[string]*Ticket)
	var errs []error
	tickets["items:a"], errs = f.Remove(t.Context(), "", []string{"items:a"}, nil)
	require.Error(t, errs[0])
	tag := keyspace.CategoryTag("items")
	tickets[tag] = f.Retire(t.Context(), "", Event{Category: "items"}, tag)
	for name, ticket := range tickets {
		require.False(t, ticket.Confirmed)
		require.True(t, f.journal.Contains(name))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		require.ErrorIs(t, ticket.Wait(ctx), context.DeadlineExceeded)
		cancel()
	}
	require.Empty(t, events)
	server.MustDo(t, "ACL", "SETUSER", "default", "~*")
	for name, ticket := range tickets {
		require.NoError(t, ticket.Wait(t.Context()))
		require.False(t, f.journal.Contains(name))
	}
	var keys, category bool
	for !keys || !category { // the hook is called at least once
		e := next(t, events)
		keys, category = keys || slices.Equal(e.Keys, []string{"items:a"}), category || e.Category == "items"
	}
	require.Eventually(t, func() bool { return len(server.MustDo(t, "KEYS", "%mark:*").([]any)) == 1 }, bound, time.Millisecond, "the watermark is recorded")
}

// What is confirmed by a connection that is lost meanwhile is sent again, and so is what a server has forgotten.
func TestWhatIsInDoubtIsSentAgain(t *testing.T) {
	t.Parallel()
	events := make(chan Event, 10)
	f, _, proxy := onRedis(t, func(e Event) { events <- e })
	gate := proxy.HoldReplies(func(args []string) bool { return strings.EqualFold(args[0], "EVALSHA") && args[3] == "items:a" })
	got := make(chan *Ticket, 1)
	go func() {
		ticket, _ := f.Remove(t.Context(), "", []string{"items:a"}, nil)
		got <- ticket
	}()
	gate.Wait(t)
	f.Gap()
	gate.Release()
	ticket := <-got
	require.False(t, ticket.Confirmed)
	require.NoError(t, ticket.Wait(t.Context()))
	require.Equal(t, Event{Keys: []string{"items:a"}}, next(t, events))
	require.Equal(t, Event{Keys: []string{"items:a"}}, again(t, f, events))
	require.EqualValues(t, 1, f.metrics.TrackingLost.Load())
	require.Zero(t, f.metrics.TrackingPaused.Load())
	f.Idle()
	require.EqualValues(t, 1, f.metrics.TrackingPaused.Load())
}

// again has the journal recover from a server that knows of nothing.
func again(t *testing.T, f *fixture, events <-chan Event) Event {
	t.Helper()
	f.journal.Recover(0)
	return next(t, events)
}

// A ticket's waits end with their context, and with the cache.
func TestAWaitEndsWhenTheCacheIsClosed(t *testing.T) {
	t.Parallel()
	f, _, _ := onRedis(t, nil)
	ticket, errs := f.Remove(t.Context(), "", []string{"items:a"}, nil)
	require.Nil(t, errs)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, ticket.Replicated(ctx, 1), context.DeadlineExceeded, "it has no replicas")
	closed := make(chan struct{})
	close(closed)
	waiting := &Ticket{pending: journal.New().Enter("", "items:b"), copied: ticket.copied, closed: closed, errClosed: errClosed}
	require.ErrorIs(t, waiting.Wait(t.Context()), errClosed)
	_, err := waiting.WaitCleanup(t.Context())
	require.ErrorIs(t, err, errClosed)
	require.ErrorIs(t, waiting.Replicated(t.Context(), 1), errClosed)
}

// Hazard 142: a pattern has its room as an entry while it is waited for, and not as what was reserved for it too.
func TestAPatternThatIsWaitedForTakesItsRoomOnce(t *testing.T) {
	t.Parallel()
	f, _, proxy := onRedis(t, nil)
	gate := proxy.HoldRequests(func(args []string) bool { return strings.EqualFold(args[0], "SCAN") })
	done := make(chan *Ticket, 1)
	end, ok := f.Reserve("one", keyspace.PatternPrefix+"items:*")
	require.True(t, ok)
	go func() { done <- f.Match(t.Context(), "one", "items:*", parsed(t, "items:*"), end) }()
	gate.Wait(t)
	n := 0 // all callers may have 64 patterns, and one caller no more than it leaves to the others
	for ; n < 64; n++ {
		if _, ok := f.Reserve("one", keyspace.PatternPrefix+"items:"+strconv.Itoa(n)); !ok {
			break
		}
	}
	gate.Release()
	require.True(t, (<-done).Confirmed)
	require.Equal(t, 32-1, n)
}

func TestNamedTagsAreSentTogetherAndOthersOneByOne(t *testing.T) {
	t.Parallel()
	named, category := keyspace.NamedPrefix+"x", keyspace.CategoryTag("items")
	require.Equal(t, [][]string{{keyspace.All}, {category}, {keyspace.Sequence, named}}, independent([]string{keyspace.Sequence, keyspace.All, category, named}))
	require.Equal(t, [][]string{{category}}, independent([]string{category}))
}

func TestATagSaysWhatWasInvalidated(t *testing.T) {
	t.Parallel()
	tags, err := keyspace.NamedTags([]string{"a:b"})
	require.NoError(t, err)
	require.Equal(t, Event{Tags: []string{"a:b"}}, eventOf(tags[0]))
	require.Equal(t, Event{Category: "items"}, eventOf(keyspace.CategoryTag("items")))
	require.Equal(t, Event{All: true}, eventOf(keyspace.All))
}

// A lateContext has a deadline that is over, and does not say so yet.
type lateContext struct{ context.Context }

func (lateContext) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

func TestTheEndOfAWaitIsTheContextsAlsoWhereTheConnectionNoticesItFirst(t *testing.T) {
	t.Parallel()
	ticket := &Ticket{copied: func(context.Context, int) error { return errors.New("i/o timeout") }, closed: make(chan struct{})}
	require.Equal(t, context.DeadlineExceeded, ticket.Replicated(lateContext{t.Context()}, 1))
	var unknown *UnknownError
	require.ErrorAs(t, ticket.Replicated(t.Context(), 1), &unknown, "its deadline is not over: it has none")
}

// One write changes a key and a tag. Redis confirms the key, and then is lost; the tag is confirmed by who has taken its place, which may lack
// what was confirmed of the key.
func TestAKeyThatWasConfirmedBeforeALossIsNotKnownToBeReplicated(t *testing.T) {
	t.Parallel()
	f, server, _ := onRedis(t, nil)
	changed := Change{Keys: []string{"items:a"}, Tags: []string{keyspace.Sequence, keyspace.CategoryTag("items")}, OfTags: []Event{{Category: "items"}}}
	confirmed, errs := f.Change(t.Context(), "", changed)
	require.Nil(t, errs)
	require.True(t, confirmed.Confirmed)
	require.NoError(t, confirmed.copied(t.Context(), 0))

	server.MustDo(t, "ACL", "SETUSER", "default", "resetkeys", "%R~*", "~{*", "~items:*", "~%mark*", "~%probe*", "~%watch*")
	late, errs := f.Change(t.Context(), "", changed)
	require.Nil(t, errs, "the key is confirmed")
	require.False(t, late.Confirmed, "the tags are not")
	f.Gap()
	server.MustDo(t, "ACL", "SETUSER", "default", "~*")
	require.NoError(t, late.Wait(t.Context()))
	require.ErrorIs(t, late.copied(t.Context(), 0), redisstore.ErrLost)

	server.MustDo(t, "ACL", "SETUSER", "default", "resetkeys", "%R~*", "~{*", "~%mark*", "~%probe*", "~%watch*")
	resent, errs := f.Change(t.Context(), "", changed)
	require.Error(t, errs[0])
	f.Gap()
	server.MustDo(t, "ACL", "SETUSER", "default", "~*")
	require.NoError(t, resent.Wait(t.Context()))
	require.NoError(t, resent.copied(t.Context(), 0), "all of it was confirmed after the loss")
}

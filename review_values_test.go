package aside_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// A memo is what a value has worked out of itself. Its lock guards that; what is encoded never changes.
type memo struct {
	Text string

	mu    sync.Mutex
	words map[string]int
}

func (m *memo) count(word string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.words[word]
	if !ok {
		n = strings.Count(m.Text, word)
		m.words[word] = n
	}
	return n
}

// The first values of a type are compared with what comes back of them, while their callers have them already: fields that are not
// exported are read without the lock that guards them. With the race detector this is a race; without it, Go ends the process where a
// map is written and gone through at the same time.
func TestWhatIsComparedIsNotReadWhileItsOwnLockIsHeldByACaller(t *testing.T) {
	t.Parallel()
	c := connected(t, at(redistest.Start(t).Addr()))
	for i := range 8 {
		v, err := aside.GetOrLoad(t.Context(), c, items.Key(i), func(context.Context) (*memo, error) {
			return &memo{Text: strings.Repeat("a word ", 10), words: make(map[string]int)}, nil
		})
		require.NoError(t, err)
		for j := range 20_000 {
			v.count(fmt.Sprint(j))
		}
	}
}

// What docs/codecs.md calls equal is not logged as lost.
func TestWhatCountsAsEqualIsNotLogged(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	fill := func(t *testing.T, v any) string {
		var log logbook
		o := at(server.Addr())
		o.Logger = slog.New(slog.NewJSONHandler(&log, nil))
		c := connected(t, o)
		var err error
		switch v := v.(type) {
		case struct{ V json.RawMessage }:
			err = aside.Set(t.Context(), c, items.Key(t.Name()), v)
		case struct{ V net.IP }:
			err = aside.Set(t.Context(), c, items.Key(t.Name()), v)
		}
		require.NoError(t, err)
		return log.String()
	}
	t.Run("RawMessage", func(t *testing.T) {
		require.NotContains(t, fill(t, struct{ V json.RawMessage }{json.RawMessage(`{"a": 1}`)}), "does not survive")
	})
	t.Run("IP", func(t *testing.T) {
		require.NotContains(t, fill(t, struct{ V net.IP }{net.IP{10, 0, 0, 1}}), "does not survive")
	})
}

// sealedValue refuses to be encoded, since something that it needs for it is not found.
type sealedValue struct{ ID int }

func (sealedValue) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("the key of the tenant: %w", aside.ErrNotFound)
}
func (*sealedValue) UnmarshalJSON([]byte) error { return nil }

// A value that cannot be encoded is there all the same. Neither its callers nor a loader around them may take that for "not found".
func TestAValueThatCannotBeEncodedIsNotNotFound(t *testing.T) {
	t.Parallel()
	private := aside.Policy{Name: "private", Category: "private", TTL: time.Hour, Private: true}
	everyMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		inner := func(ctx context.Context) (sealedValue, error) {
			return aside.GetOrLoad(ctx, c, private.Key("a"), func(context.Context) (sealedValue, error) { return sealedValue{1}, nil })
		}
		_, err := inner(t.Context())
		require.Error(t, err)
		require.False(t, errors.Is(err, aside.ErrNotFound), err)
		_, _ = aside.GetOrLoad(t.Context(), c, items.Key("outer"), inner)
		_, err = aside.Get[sealedValue](t.Context(), c, items.Key("outer"))
		require.ErrorIs(t, err, aside.ErrMiss, "a failure is cached as not found")
	})
}

// A loader of orders asks for the users 5 and 101. There is no user 5, and 101 fails. It hands on that failure, which is about another id
// too: nothing is known of order 5.
func TestAnIdThatAnotherBatchHasNotFoundIsNotNotFound(t *testing.T) {
	t.Parallel()
	users := aside.Policy{Category: "users", TTL: time.Hour}
	outage := errors.New("outage")
	everyMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		loadUsers := func(context.Context, []int) (map[int]string, error) {
			return map[int]string{}, &aside.BatchError[int]{Errors: map[int]error{101: outage}}
		}
		orders := aside.NewBatchLoader(c, items, func(ctx context.Context, _ []int) (map[int]string, error) {
			_, err := aside.GetOrLoadMany(ctx, c, []int{5, 101}, func(id int) aside.Key { return users.Key(id) }, loadUsers)
			return nil, err
		})
		_, err := orders.GetMany(t.Context(), []int{5, 6})
		require.Error(t, err)
		for _, id := range []int{5, 6} {
			_, err = aside.Get[string](t.Context(), c, orders.Key(id))
			require.ErrorIs(t, err, aside.ErrMiss, "order %d", id)
		}
		_, err = orders.Get(t.Context(), 5)
		require.ErrorIs(t, err, outage)
	})
}

// A loader of profiles asks for the credits of the same ids, in their own category. User 5 has none, and those of user 6 fail. It returns no
// profile: that user 5 has none is not known.
func TestAFailureWithoutValuesFindsNothingNotFound(t *testing.T) {
	t.Parallel()
	credits := aside.Policy{Category: "credits", TTL: time.Hour}
	outage := errors.New("outage")
	everyMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		inner := aside.NewBatchLoader(c, credits, func(context.Context, []int) (map[int]int, error) {
			return map[int]int{}, &aside.BatchError[int]{Errors: map[int]error{6: outage}}
		})
		profiles := aside.NewBatchLoader(c, items, func(ctx context.Context, ids []int) (map[int]string, error) {
			if _, err := inner.GetMany(ctx, ids); err != nil {
				return nil, err
			}
			return map[int]string{5: "five", 6: "six"}, nil
		})
		_, err := profiles.GetMany(t.Context(), []int{5, 6})
		require.Error(t, err)
		_, err = aside.Get[string](t.Context(), c, profiles.Key(5))
		require.ErrorIs(t, err, aside.ErrMiss)
	})
}

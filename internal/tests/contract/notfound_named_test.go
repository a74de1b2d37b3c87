package contract_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// noDocument is an error of a library that says itself what it is, and has no cause.
type noDocument struct{}

func (noDocument) Error() string        { return "no document" }
func (noDocument) Is(target error) bool { return target == sql.ErrNoRows }

// errGone has the byte in its text that separates texts in Redis.
var errGone = errors.New("gone\x00for good")

// rows has names of its own for "not found", beside that of the caches' options.
var rows = aside.Policy{Name: "rows", Category: "items", TTL: time.Minute, NotFound: []error{fs.ErrNotExist, errGone}}

var withRows = aside.Options{NotFound: []error{sql.ErrNoRows}, Policies: []aside.Policy{rows}}

// absentErrors are what a loader returns, and which of the named errors that is.
func absentErrors() map[string]struct{ err, name error } {
	_, noFile := os.Open("there is no such file")
	return map[string]struct{ err, name error }{
		"plain":                {sql.ErrNoRows, sql.ErrNoRows},
		"wrapped":              {fmt.Errorf("user 7: %w", sql.ErrNoRows), sql.ErrNoRows},
		"by a method":          {noDocument{}, sql.ErrNoRows},
		"by a cause's method":  {noFile, fs.ErrNotExist},
		"of the policy":        {fmt.Errorf("it is %w", errGone), errGone},
		"a text that ends so":  {fmt.Errorf("%w\x00", sql.ErrNoRows), sql.ErrNoRows},
		"a text that looks so": {fmt.Errorf("%w\x00file does not exist", sql.ErrNoRows), sql.ErrNoRows},
		"a long text":          {fmt.Errorf("%01500d: %w", 7, sql.ErrNoRows), sql.ErrNoRows},
		"a text that is cut":   {fmt.Errorf("%0100000d: %w", 7, sql.ErrNoRows), sql.ErrNoRows},
		"unnamed":              {fmt.Errorf("%w: \x00sql: no rows in result set", aside.ErrNotFound), nil},
		"unnamed and plain":    {aside.ErrNotFound, nil},
	}
}

// Errors that the program names mean "not found": for the caller of the load, for hits in memory, and for hits in another process.
func TestErrorsThatAreNamedMeanNotFound(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		here, elsewhere := newCache(withRows), newCache(withRows)
		inMemory := here.Health().State == aside.StateMemory
		for what, c := range absentErrors() {
			key, loads := rows.Key(what), 0
			ask := func(c *aside.Cache, err error) error {
				_, err = aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) { loads++; return "", err })
				return err
			}
			check := func(who string, err error) {
				require.ErrorIs(t, err, aside.ErrNotFound, "%s: %s", what, who)
				for _, name := range []error{sql.ErrNoRows, fs.ErrNotExist, errGone} {
					require.Equal(t, name == c.name, errors.Is(err, name), "%s: %s: %v is %v", what, who, err, name)
				}
			}
			err := ask(here, c.err)
			check("the load", err)
			require.Equal(t, c.err.Error(), err.Error(), what)
			require.ErrorIs(t, err, c.err, what)
			check("a hit here", ask(here, io.EOF))
			_, err = aside.Get[string](t.Context(), here, key)
			check("a Get here", err)
			require.Equal(t, 1, loads, what)
			if inMemory {
				continue
			}
			asidetest.Eventually(t, what+" is in redis", func() bool {
				_, err := aside.Get[string](t.Context(), elsewhere, key)
				return !errors.Is(err, aside.ErrMiss)
			})
			err = ask(elsewhere, io.EOF)
			check("a hit elsewhere", err)
			if len(c.err.Error()) <= 1<<10 {
				require.Equal(t, c.err.Error(), err.Error(), what)
			}
			require.Equal(t, 1, loads, what)
		}
	})
}

// A process that does not name the error, as one of an older build, has the "not found" all the same.
func TestANameThatAnotherProcessDoesNotKnow(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		here, elsewhere := newCache(withRows), newCache(aside.Options{})
		if here.Health().State == aside.StateMemory {
			return
		}
		fewer := rows
		fewer.NotFound = nil
		_, err := aside.GetOrLoad(t.Context(), here, rows.Key(1), func(context.Context) (string, error) { return "", fmt.Errorf("user 7: %w", sql.ErrNoRows) })
		require.ErrorIs(t, err, sql.ErrNoRows)
		asidetest.Eventually(t, "it is in redis", func() bool {
			_, err := aside.Get[string](t.Context(), elsewhere, fewer.Key(1))
			return err != aside.ErrMiss
		})
		_, err = aside.Get[string](t.Context(), elsewhere, fewer.Key(1))
		require.ErrorIs(t, err, aside.ErrNotFound)
		require.NotErrorIs(t, err, sql.ErrNoRows)
		require.EqualError(t, err, "user 7: sql: no rows in result set")
	})
}

// Loaders of batches name their errors too, and a load inside of a load passes them on.
func TestNamedErrorsOfBatchesAndOfLoadsInside(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(withRows)
		l := aside.NewBatchLoader(c, rows, func(_ context.Context, ids []int) (map[int]string, error) {
			return map[int]string{1: "one"}, &aside.BatchError[int]{Errors: map[int]error{2: sql.ErrNoRows, 3: io.EOF}}
		})
		got, err := l.GetMany(t.Context(), []int{1, 2, 3, 4})
		require.Equal(t, map[int]string{1: "one"}, got)
		var batch *aside.BatchError[int]
		require.ErrorAs(t, err, &batch)
		require.Equal(t, map[int]error{3: io.EOF}, batch.Errors, "an id that is not found has not failed")
		outer := func() error {
			_, err := aside.GetOrLoad(t.Context(), c, rows.Key("outer"), func(ctx context.Context) (string, error) { return l.Get(ctx, 2) })
			return err
		}
		for range 2 {
			err := outer()
			require.ErrorIs(t, err, aside.ErrNotFound)
			require.ErrorIs(t, err, sql.ErrNoRows)
		}
	})
}

// What wraps several errors, and a panic, are failures whatever is among them. So is an error that nobody names.
func TestNamedErrorsAmongFailuresAreFailures(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, withRows)
	for what, fail := range map[string]func() error{
		"joined":   func() error { return errors.Join(sql.ErrNoRows, io.EOF) },
		"two %w":   func() error { return fmt.Errorf("%w: %w", io.EOF, sql.ErrNoRows) },
		"a panic":  func() error { panic(sql.ErrNoRows) },
		"unnamed":  func() error { return io.EOF },
		"its text": func() error { return errors.New(sql.ErrNoRows.Error()) },
	} {
		var loads atomic.Int64
		for range 2 {
			_, err := aside.GetOrLoad(t.Context(), c, rows.Key(what), func(context.Context) (string, error) { loads.Add(1); return "", fail() })
			require.Error(t, err, what)
			require.NotErrorIs(t, err, aside.ErrNotFound, what)
		}
		require.EqualValues(t, 2, loads.Load(), what)
	}
}

// incomparable is an error that == cannot compare.
type incomparable []string

func (incomparable) Error() string { return "incomparable" }

func TestWrongNamesForNotFoundAreRefused(t *testing.T) {
	t.Parallel()
	for want, names := range map[string][]error{
		"NotFound[1] is nil: leave it out": {sql.ErrNoRows, nil},
		"NotFound[0] is of type contract_test.incomparable, which == cannot compare: give a variable that errors.New has made": {incomparable{}},
		"NotFound[0] is context canceled, which does not say that something does not exist: leave it out":                      {context.Canceled},
		"NotFound[0] is context deadline exceeded, which does not say that something does not exist: leave it out":             {context.DeadlineExceeded},
		"NotFound[0] is aside: not modified, which does not say that something does not exist: leave it out":                   {aside.ErrNotModified},
		"NotFound[2] has the text of NotFound[0], by which processes tell them apart: give one of them":                        {io.EOF, sql.ErrNoRows, errors.New("EOF")},
		"NotFound[1] has the text of NotFound[0], by which processes tell them apart: give one of them":                        {errors.New("gone x"), errors.New("gone\x00x")},
	} {
		_, err := aside.New(aside.Options{NotFound: names})
		require.EqualError(t, err, "aside: Options."+want)
		wrong := rows
		wrong.NotFound = names
		_, err = aside.New(aside.Options{Policies: []aside.Policy{wrong}})
		require.ErrorContains(t, err, `policy "rows": `+want)
		c := asidetest.NewCache(t, aside.Options{})
		for range 2 {
			_, err = aside.Get[string](t.Context(), c, wrong.Key(1))
			require.ErrorContains(t, err, `policy "rows": `+want)
		}
	}
}

// A process tells the errors of its policies and those of Options.NotFound apart by their texts too.
func TestTwoNamesForNotFoundOfOneTextAreRefused(t *testing.T) {
	t.Parallel()
	const want = `policy "rows": NotFound[1] has the text of Options.NotFound[1], and is another error: processes tell them apart by their texts, so give one of them`
	p := rows
	p.NotFound = []error{fs.ErrNotExist, errors.New("EOF")}
	o := aside.Options{NotFound: []error{fs.ErrNotExist, io.EOF}, Policies: []aside.Policy{p}}
	_, err := aside.New(o)
	require.ErrorContains(t, err, "Options.Policies[0]: aside: "+want)
	o.Policies = nil
	_, err = aside.Get[string](t.Context(), asidetest.NewCache(t, o), p.Key(1))
	require.ErrorContains(t, err, want)

	p.NotFound[1], o.NotFound[1] = errors.New("gone x"), errors.New("gone\x00x") // Redis holds one text for both
	_, err = aside.Get[string](t.Context(), asidetest.NewCache(t, o), p.Key(1))
	require.ErrorContains(t, err, want)

	p.NotFound = o.NotFound
	_, err = aside.Get[string](t.Context(), asidetest.NewCache(t, o), p.Key(1))
	require.ErrorIs(t, err, aside.ErrMiss, "the same error may be in both")
}

// Two policies that differ in their names alone are two policies.
func TestPoliciesWithOtherNamesForNotFoundDiffer(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, withRows)
	other := rows
	other.NotFound = []error{fs.ErrNotExist}
	_, err := aside.Get[string](t.Context(), c, other.Key(1))
	require.ErrorContains(t, err, `two different policies are named "rows"`)
	same := rows
	same.NotFound = []error{fs.ErrNotExist, errGone}
	_, err = aside.Get[string](t.Context(), c, same.Key(1))
	require.ErrorIs(t, err, aside.ErrMiss)
}

// Of two names that an error is, the policy's own is the one that other processes know it by.
func TestThePolicysOwnNameComesFirst(t *testing.T) {
	t.Parallel()
	special := fmt.Errorf("no order: %w", sql.ErrNoRows)
	p := aside.Policy{Name: "rows", Category: "items", TTL: time.Minute, NotFound: []error{special}}
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		o := aside.Options{NotFound: []error{sql.ErrNoRows}}
		here, elsewhere := newCache(o), newCache(o)
		if here.Health().State == aside.StateMemory {
			elsewhere = here
		}
		_, err := aside.GetOrLoad(t.Context(), here, p.Key(1), func(context.Context) (string, error) { return "", special })
		require.ErrorIs(t, err, special)
		asidetest.Eventually(t, "it is cached", func() bool {
			_, err = aside.Get[string](t.Context(), elsewhere, p.Key(1))
			return err != aside.ErrMiss
		})
		for _, name := range []error{special, sql.ErrNoRows, aside.ErrNotFound} {
			require.ErrorIs(t, err, name)
		}
	})
}

package migrate_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/examples/migrate"
	"github.com/gatewayz/aside/internal/asidetest"
)

func TestProductsAreQueriedByOneBatch(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		var queries [][]int
		cents := 100
		p := migrate.NewProducts(newCache(aside.Options{}), func(_ context.Context, ids []int) (map[int]migrate.Product, error) {
			queries = append(queries, slices.Sorted(slices.Values(ids)))
			found := map[int]migrate.Product{}
			for _, id := range ids {
				if id < 10 {
					found[id] = migrate.Product{ID: id, Cents: cents}
				}
			}
			return found, nil
		})
		many := func(ids ...int) map[int]migrate.Product {
			t.Helper()
			found, err := p.Many(t.Context(), ids)
			require.NoError(t, err)
			return found
		}
		require.Equal(t, map[int]migrate.Product{1: {ID: 1, Cents: 100}, 2: {ID: 2, Cents: 100}}, many(1, 2, 99))
		many(2, 99, 1, 3)
		require.Equal(t, [][]int{{1, 2, 99}, {3}}, queries, "what does not exist is remembered too")
		cents = 200
		require.NoError(t, p.Changed(t.Context(), 1))
		require.Equal(t, map[int]migrate.Product{1: {ID: 1, Cents: 200}, 2: {ID: 2, Cents: 100}}, many(1, 2))
		require.Equal(t, []int{1}, queries[2])
	})
}

func TestSessionsFollowTheDatabase(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		finds, broken := 0, error(nil)
		rows := map[string]migrate.Session{}
		s := migrate.NewSessions(newCache(aside.Options{}),
			func(_ context.Context, token string) (migrate.Session, error) {
				finds++
				if session, ok := rows[token]; ok {
					return session, nil
				}
				return migrate.Session{}, sql.ErrNoRows
			},
			func(_ context.Context, token string, session migrate.Session) error {
				if broken == nil {
					rows[token] = session
				}
				return broken
			},
			func(_ context.Context, token string) error {
				if broken == nil {
					delete(rows, token)
				}
				return broken
			})
		for range 2 {
			_, err := s.Find(t.Context(), "t")
			require.ErrorIs(t, err, sql.ErrNoRows)
		}
		require.Equal(t, 1, finds, "that there is none is remembered")
		alice := migrate.Session{User: "alice", Roles: []string{"admin"}}
		require.NoError(t, s.Save(t.Context(), "t", alice))
		got, err := s.Find(t.Context(), "t")
		require.NoError(t, err)
		require.Equal(t, alice, got)
		require.Equal(t, 1, finds, "Save has stored it")

		broken = errors.New("the database is down")
		require.ErrorIs(t, s.Save(t.Context(), "t", migrate.Session{}), broken)
		require.ErrorIs(t, s.End(t.Context(), "t"), broken)
		got, err = s.Find(t.Context(), "t")
		require.NoError(t, err)
		require.Equal(t, alice, got, "what the database refuses is not cached")

		broken = nil
		require.NoError(t, s.End(t.Context(), "t"))
		_, err = s.Find(t.Context(), "t")
		require.ErrorIs(t, err, sql.ErrNoRows)
	})
}

func TestSettingsAreFetchedOnceAndByTenant(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		var mu sync.Mutex
		fetched := map[migrate.Setting]int{}
		s := migrate.NewSettings(newCache(aside.Options{}), func(_ context.Context, s migrate.Setting) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			fetched[s]++
			return s.Tenant + " " + s.Name, nil
		})
		a, b := migrate.Setting{Tenant: "a", Name: "theme"}, migrate.Setting{Tenant: "b", Name: "theme"}
		get := func(setting migrate.Setting) {
			t.Helper()
			v, err := s.Get(t.Context(), setting)
			require.NoError(t, err)
			require.Equal(t, setting.Tenant+" theme", v)
		}
		for range 2 {
			get(a)
			get(b)
		}
		require.NoError(t, s.TenantChanged(t.Context(), "a"))
		get(a)
		get(b)
		require.Equal(t, map[migrate.Setting]int{a: 2, b: 1}, fetched)
	})
}

// Callers of one setting share a fetch, and a caller that gives up ends it for nobody else.
func TestSettingsShareAFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: asidetest.Quiet()})
		require.NoError(t, err)
		defer c.Close()
		var fetches atomic.Int32
		s := migrate.NewSettings(c, func(ctx context.Context, _ migrate.Setting) (string, error) {
			fetches.Add(1)
			select {
			case <-time.After(time.Second):
				return "dark", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		})
		brief, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			_, err := s.Get(brief, migrate.Setting{Tenant: "a", Name: "theme"})
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
		synctest.Wait()
		for range 10 {
			all.Go(func() {
				v, err := s.Get(t.Context(), migrate.Setting{Tenant: "a", Name: "theme"})
				require.NoError(t, err)
				require.Equal(t, "dark", v)
			})
		}
		all.Wait()
		require.EqualValues(t, 1, fetches.Load())
	})
}

// docs/migrating.md shows the files, and counts their lines.
func TestThePageShowsThePrograms(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		text, err := os.ReadFile("../../" + name)
		require.NoError(t, err)
		return string(text)
	}
	lines := func(text string) (n int) {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
				n++
			}
		}
		return n
	}
	page := read("docs/migrating.md")
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(page, -1)
	counts := regexp.MustCompile(`(?m)\| (\d+) \| (\d+) \|$`).FindAllStringSubmatch(page, -1)
	files := []string{"products.go", "sessions.go", "settings.go"}
	require.Len(t, blocks, 2*len(files))
	require.Len(t, counts, len(files))
	for i, name := range files {
		before, after := read("bench/compare/before/"+name), read("examples/migrate/"+name)
		for n, text := range []string{before, after} {
			_, program, found := strings.Cut(text, "\n)\n\n")
			require.True(t, found)
			require.Equal(t, program, blocks[2*i+n][1], name)
			require.Equal(t, strconv.Itoa(lines(text)), counts[i][n+1], "lines of "+name)
		}
		require.Less(t, lines(after), lines(before))
	}
}

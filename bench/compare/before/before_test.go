package before_test

import (
	"context"
	"database/sql"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/gatewayz/aside/bench/compare/before"
	"github.com/gatewayz/aside/internal/redistest"
)

// The programs do what those of examples/migrate do, as far as the libraries can: so the comparison is of programs that work.
func TestProducts(t *testing.T) {
	t.Parallel()
	var queries [][]int
	p := before.NewProducts(func(_ context.Context, ids []int) (map[int]before.Product, error) {
		queries = append(queries, slices.Sorted(slices.Values(ids)))
		found := map[int]before.Product{}
		for _, id := range ids {
			if id < 10 {
				found[id] = before.Product{ID: id}
			}
		}
		return found, nil
	})
	for _, ids := range [][]int{{1, 2, 99}, {2, 99, 1, 3}} {
		found, err := p.Many(t.Context(), ids)
		if err != nil || len(found) != len(ids)-1 {
			t.Fatal(found, err)
		}
	}
	if !slices.EqualFunc(queries, [][]int{{1, 2, 99}, {3}}, slices.Equal) {
		t.Fatal(queries)
	}
	if _, err := p.Many(t.Context(), []int{1}); p.Changed(t.Context(), 1) != nil || err != nil {
		t.Fatal(err)
	}
	if _, err := p.Many(t.Context(), []int{1, 2}); err != nil || !slices.Equal(queries[len(queries)-1], []int{1}) {
		t.Fatal(queries, err)
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{Addr: redistest.Start(t).Addr()})
	t.Cleanup(func() { _ = client.Close() })
	rows, finds := map[string]before.Session{}, 0
	s := before.NewSessions(client, func(_ context.Context, token string) (before.Session, error) {
		finds++
		if session, ok := rows[token]; ok {
			return session, nil
		}
		return before.Session{}, sql.ErrNoRows
	}, func(_ context.Context, token string, session before.Session) error {
		rows[token] = session
		return nil
	}, func(_ context.Context, token string) error {
		delete(rows, token)
		return nil
	})
	for range 2 {
		if _, err := s.Find(t.Context(), "t"); err != sql.ErrNoRows || finds != 1 {
			t.Fatal(err, finds)
		}
	}
	if err := s.Save(t.Context(), "t", before.Session{User: "alice"}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Find(t.Context(), "t"); err != nil || got.User != "alice" || finds != 1 {
		t.Fatal(got, err, finds)
	}
	if err := s.End(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(t.Context(), "t"); err != sql.ErrNoRows || finds != 2 {
		t.Fatal(err, finds)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	fetched := map[before.Setting]int{}
	s := before.NewSettings(func(_ context.Context, s before.Setting) (string, error) {
		fetched[s]++
		return s.Tenant + " " + s.Name, nil
	})
	a, b := before.Setting{Tenant: "a", Name: "theme"}, before.Setting{Tenant: "b", Name: "theme"}
	for i, setting := range []before.Setting{a, b, a, b, a, b} {
		if v, err := s.Get(t.Context(), setting); err != nil || v != setting.Tenant+" theme" {
			t.Fatal(v, err)
		}
		if i == 3 {
			if err := s.TenantChanged(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if fetched[a] != 2 || fetched[b] != 1 {
		t.Fatal(fetched)
	}
}

package freshness_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// An etagged source answers like a source with ETags: that a value is not modified, unless its version has changed.
type etagged struct {
	version atomic.Int64
	full    atomic.Int64 // answers with a value
	same    atomic.Int64 // answers without one
	during  func()       // called in each load, between its question and its answer
	word    func(l *aside.Load)
}

func newETagged() *etagged {
	o := &etagged{}
	o.version.Store(1)
	return o
}

func (o *etagged) etag() string { return strconv.FormatInt(o.version.Load(), 10) }

func (o *etagged) load(ctx context.Context) (string, error) {
	etag := o.etag()
	prior, ok := aside.Previous[string](ctx)
	if o.during != nil {
		o.during()
	}
	if o.word != nil {
		o.word(aside.CurrentLoad(ctx))
	}
	if ok && prior.ETag == etag {
		o.same.Add(1)
		return "", fmt.Errorf("304: %w", aside.ErrNotModified)
	}
	o.full.Add(1)
	aside.CurrentLoad(ctx).ETag(etag)
	return "v" + etag, nil
}

func (o *etagged) requireLook(t *testing.T, c *aside.Cache, key aside.Key, value string, status aside.Status, opts ...aside.CallOption) aside.Result[string] {
	t.Helper()
	r, err := aside.Lookup(t.Context(), c, key, o.load, opts...)
	require.NoError(t, err)
	require.Equal(t, value, r.Value)
	require.Equal(t, status, r.Status, r.Reason)
	require.Equal(t, strings.TrimPrefix(value, "v"), r.ETag)
	return r
}

func (o *etagged) requireLoads(t *testing.T, full, same int) {
	t.Helper()
	require.Equal(t, []int64{int64(full), int64(same)}, []int64{o.full.Load(), o.same.Load()})
}

func TestAValueThatIsNotModifiedCountsAsLoadedAnew(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*aside.Policy){
		"stale":         func(p *aside.Policy) { p.Stale = ttl },
		"on error":      func(p *aside.Policy) { p.StaleIfError = ttl },
		"refresh ahead": func(p *aside.Policy) { p.RefreshAhead = 0.5 },
		"a copy each":   func(p *aside.Policy) { p.Stale, p.CloneOnRead = ttl, true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
				key, o := items(change).Key("a"), newETagged()
				o.requireLook(t, c, key, "v1", aside.StatusMiss)
				for n := range 5 {
					last := time.Now()
					if name == "refresh ahead" {
						time.Sleep(ttl - time.Millisecond)
					} else {
						time.Sleep(ttl)
					}
					if name == "on error" {
						r := o.requireLook(t, c, key, "v1", aside.StatusMiss)
						require.Zero(t, r.Age)
					} else {
						_, err := aside.GetOrLoad(t.Context(), c, key, o.load)
						require.NoError(t, err)
						synctest.Wait()
					}
					require.Positive(t, time.Since(last))
					r := o.requireLook(t, c, key, "v1", aside.StatusHit)
					require.Zero(t, r.Age)
					require.Equal(t, ttl, r.TTL)
					o.requireLoads(t, 1, n+1)
				}
				require.EqualValues(t, 5, c.Metrics().Labels["items"].NotModified)
				require.Zero(t, c.Metrics().Labels["items"].LoadErrors)
				o.version.Add(1)
				time.Sleep(ttl)
				_, err := aside.GetOrLoad(t.Context(), c, key, o.load)
				require.NoError(t, err)
				synctest.Wait()
				o.requireLook(t, c, key, "v2", aside.StatusHit)
				o.requireLoads(t, 2, 5)
			})
		})
	}
}

// What a loader is told of the cached value.
func TestPreviousIsWhatIsCached(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		policy := items(func(p *aside.Policy) { p.StaleIfError = ttl })
		key := policy.Key("a")
		var seen []aside.Prior[string]
		load := func(ctx context.Context) (string, error) {
			p, ok := aside.Previous[string](ctx)
			if ok {
				seen = append(seen, p)
			}
			_, other := aside.Previous[int](ctx)
			require.False(t, other, "of another type")
			of, ofOK := aside.PreviousOf[string](ctx, key)
			require.Equal(t, ok, ofOK)
			require.Equal(t, p.ETag, of.ETag)
			_, foreign := aside.PreviousOf[string](ctx, policy.Key("b"))
			require.False(t, foreign)
			aside.CurrentLoad(ctx).ETag(`W/"1"`)
			return "value", nil
		}
		began := time.Now()
		call := func(opts ...aside.CallOption) int {
			t.Helper()
			seen = nil
			_, err := aside.GetOrLoad(t.Context(), c, key, load, opts...)
			require.NoError(t, err)
			return len(seen)
		}
		require.Zero(t, call(), "nothing is cached")
		time.Sleep(ttl + 100*time.Millisecond)
		require.Equal(t, 1, call())
		require.Equal(t, `W/"1"`, seen[0].ETag)
		require.WithinDuration(t, began, seen[0].LoadedAt, time.Millisecond)
		v, ok := seen[0].Value()
		require.True(t, ok)
		require.Equal(t, "value", v)
		require.Zero(t, call(aside.Refresh()), "a Refresh replaces it, whatever it is")
		time.Sleep(2 * ttl)
		require.Zero(t, call(), "what is dead is none")

		_, ok = aside.Previous[string](t.Context())
		require.False(t, ok, "outside of a load")
		_, ok = aside.Prior[string]{}.Value()
		require.False(t, ok)

		// With Strong, a value past its TTL is no answer. It is one once the source has said that it is not modified.
		time.Sleep(ttl)
		require.Equal(t, 1, call(aside.Strong()))
	})
}

func TestAPreviousValueEndsWithItsLoad(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key := items(func(p *aside.Policy) { p.StaleIfError = ttl }).Key("a")
		var kept context.Context
		load := func(ctx context.Context) (string, error) { kept = ctx; return "v", nil }
		_, err := aside.GetOrLoad(t.Context(), c, key, load)
		require.NoError(t, err)
		time.Sleep(ttl)
		_, err = aside.GetOrLoad(t.Context(), c, key, load)
		require.NoError(t, err)
		_, ok := aside.Previous[string](kept)
		require.False(t, ok)
	})
}

func TestNotModifiedWithoutAPreviousValueIsAFailure(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{Backoff: -1}, func(t *testing.T, c *aside.Cache) {
		key := items(func(p *aside.Policy) { p.StaleIfError = ttl }).Key("a")
		notModified := func(context.Context) (string, error) { return "no value", aside.ErrNotModified }
		_, err := aside.GetOrLoad(t.Context(), c, key, notModified)
		asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
		require.ErrorContains(t, err, "ErrNotModified")
		require.ErrorContains(t, err, "Previous")
		m := c.Metrics().Labels["items"]
		require.EqualValues(t, 1, m.LoadErrors)
		require.Zero(t, m.NotModified)
		_, err = aside.Get[string](t.Context(), c, key)
		require.ErrorIs(t, err, aside.ErrMiss)

		// An error that holds it beside another one is a failure.
		require.NoError(t, aside.Set(t.Context(), c, key, "cached"))
		time.Sleep(ttl)
		r, err := aside.Lookup(t.Context(), c, key, func(context.Context) (string, error) {
			return "", errors.Join(errors.New("the source is down"), aside.ErrNotModified)
		})
		require.NoError(t, err)
		require.Equal(t, aside.StatusStale, r.Status)
		require.Equal(t, "past its TTL, the load failed", r.Reason)
		require.Zero(t, c.Metrics().Labels["items"].NotModified)
	})
}

func TestAnETagThatCannotBeStoredIsAnErrorOfItsLoad(t *testing.T) {
	t.Parallel()
	for name, etag := range map[string]string{"too long": strings.Repeat("x", 1025), "a line break": "a\nb", "a control character": "a\x7f"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := asidetest.NewCache(t, aside.Options{})
			key := items(func(*aside.Policy) {}).Key("a")
			_, err := aside.GetOrLoad(t.Context(), c, key, func(ctx context.Context) (string, error) {
				aside.CurrentLoad(ctx).ETag(etag)
				return "v", nil
			})
			asidetest.RequireCode(t, err, aside.CodeInvalidArgument)
			require.ErrorContains(t, err, "Load.ETag")
			require.Less(t, len(err.Error()), 300)
			require.EqualValues(t, 1, c.Metrics().Labels["items"].LoadErrors)
			_, err = aside.Get[string](t.Context(), c, key)
			require.ErrorIs(t, err, aside.ErrMiss)
		})
	}
	c := asidetest.NewCache(t, aside.Options{})
	longest := strings.Repeat("x", 1024)
	r, err := aside.Lookup(t.Context(), c, items(func(*aside.Policy) {}).Key("a"), func(ctx context.Context) (string, error) {
		aside.CurrentLoad(ctx).ETag(longest)
		return "v", nil
	})
	require.NoError(t, err)
	require.Equal(t, longest, r.ETag)
}

// Hazard 35: what was invalidated does not come back because the source says that it is not modified.
func TestWhatWasInvalidatedIsNotKeptAsNotModified(t *testing.T) {
	t.Parallel()
	policy := items(func(p *aside.Policy) { p.StaleIfError = ttl })
	key := policy.Key("a")
	invalidate := map[string]func(c *aside.Cache) error{
		"key": func(c *aside.Cache) error { _, err := c.Invalidate(context.Background(), key); return err },
		"tag": func(c *aside.Cache) error {
			_, err := c.InvalidateTags(context.Background(), "of the call")
			return err
		},
		"late tag": func(c *aside.Cache) error {
			_, err := c.InvalidateTags(context.Background(), "of the loader")
			return err
		},
		"category":  func(c *aside.Cache) error { _, err := c.InvalidateCategory(context.Background(), "items"); return err },
		"other tag": func(c *aside.Cache) error { _, err := c.InvalidateTags(context.Background(), "of nothing"); return err },
	}
	for door, invalidate := range invalidate {
		for _, during := range []bool{false, true} {
			t.Run(fmt.Sprint(door, " during the load ", during), func(t *testing.T) {
				t.Parallel()
				asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
					o := newETagged()
					o.word = func(l *aside.Load) { l.Tag("of the loader") }
					o.requireLook(t, c, key, "v1", aside.StatusMiss, aside.WithTags("of the call"))
					o.word = nil // the tag is inherited
					time.Sleep(ttl)
					if during {
						o.during = func() { require.NoError(t, invalidate(c)) }
					} else {
						require.NoError(t, invalidate(c))
					}
					o.requireLook(t, c, key, "v1", aside.StatusMiss, aside.WithTags("of the call"))
					o.during = nil
					_, err := aside.Get[string](t.Context(), c, key)
					switch {
					case door == "other tag":
						require.NoError(t, err)
						o.requireLoads(t, 1, 1)
					case during:
						o.requireLoads(t, 1, 1)
						require.ErrorIs(t, err, aside.ErrMiss, "it is given to its callers, and not kept")
						require.EqualValues(t, 1, asidetest.Refused(c))
					default:
						o.requireLoads(t, 2, 0)
						require.NoError(t, err)
					}
				})
			})
		}
	}
}

// A value that is not modified keeps its tags, and gets those of the new load.
func TestAValueThatIsNotModifiedKeepsItsTags(t *testing.T) {
	t.Parallel()
	for _, tag := range []string{"first", "second", "third"} {
		t.Run(tag, func(t *testing.T) {
			t.Parallel()
			asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
				key, o := items(func(p *aside.Policy) { p.StaleIfError = ttl }).Key("a"), newETagged()
				for _, tag := range []string{"first", "second", "third"} {
					o.word = func(l *aside.Load) { l.Tag(tag) }
					o.requireLook(t, c, key, "v1", aside.StatusMiss)
					time.Sleep(ttl - time.Millisecond)
					o.requireLook(t, c, key, "v1", aside.StatusHit)
					time.Sleep(time.Millisecond)
				}
				o.word = nil
				o.requireLook(t, c, key, "v1", aside.StatusMiss)
				o.requireLoads(t, 1, 3)
				require.ElementsMatch(t, []string{"first", "second", "third"}, asidetest.Infos(t, c, aside.Pattern{})[key.String()].Tags)
				_, err := c.InvalidateTags(t.Context(), tag)
				require.NoError(t, err)
				_, err = aside.Get[string](t.Context(), c, key)
				require.ErrorIs(t, err, aside.ErrMiss)
				o.requireLook(t, c, key, "v1", aside.StatusMiss)
				o.requireLoads(t, 2, 3)
			})
		})
	}
}

// A loader's word counts for a value that is not modified as for any other.
func TestALoaderSaysHowLongAValueThatIsNotModifiedIsKept(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		key, o := items(func(p *aside.Policy) { p.StaleIfError = ttl }).Key("a"), newETagged()
		o.requireLook(t, c, key, "v1", aside.StatusMiss)
		time.Sleep(ttl)
		o.word = func(l *aside.Load) { l.TTL(time.Minute) }
		r := o.requireLook(t, c, key, "v1", aside.StatusMiss)
		require.Equal(t, time.Minute, r.TTL)
		time.Sleep(time.Minute)
		o.word = func(l *aside.Load) { l.ETag("7") }
		r, err := aside.Lookup(t.Context(), c, key, o.load)
		require.NoError(t, err)
		require.Equal(t, "7", r.ETag, "another name for the same version")
		time.Sleep(ttl)
		o.version.Store(7)
		o.word = func(l *aside.Load) { l.NoStore() }
		r, err = aside.Lookup(t.Context(), c, key, o.load)
		require.NoError(t, err)
		require.Equal(t, "v1", r.Value)
		o.requireLoads(t, 1, 3)
		_, err = aside.Get[string](t.Context(), c, key)
		require.ErrorIs(t, err, aside.ErrMiss)
		require.Empty(t, asidetest.Infos(t, c, aside.Pattern{}), "a load that succeeds supersedes what was there")
	})
}

// Each id of a batch has a previous value of its own.
func TestEachIDOfABatchMayBeNotModified(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		policy := items(func(p *aside.Policy) { p.StaleIfError = ttl })
		key := func(id int) aside.Key { return policy.Key(id) }
		version := map[int]string{1: "a", 2: "b", 3: "c"}
		var full, same []int
		load := func(ctx context.Context, ids []int) (map[int]string, error) {
			_, ok := aside.Previous[string](ctx)
			require.False(t, ok, "of several ids")
			values, failed := make(map[int]string), make(map[int]error)
			for _, id := range ids {
				if p, ok := aside.PreviousOf[string](ctx, key(id)); ok && p.ETag == version[id] {
					same, failed[id] = append(same, id), aside.ErrNotModified
					continue
				}
				full, values[id] = append(full, id), version[id]
				aside.CurrentLoad(ctx).Of(key(id)).ETag(version[id])
			}
			return values, &aside.BatchError[int]{Errors: failed}
		}
		get := func() map[int]string {
			full, same = nil, nil
			got, err := aside.GetOrLoadMany(t.Context(), c, []int{1, 2, 3}, key, load)
			require.NoError(t, err)
			return got
		}
		require.Equal(t, version, get())
		time.Sleep(ttl)
		version[2] = "x"
		require.Equal(t, version, get())
		require.Equal(t, []int{2}, full)
		require.Equal(t, []int{1, 3}, same)
		require.EqualValues(t, 2, c.Metrics().Labels["items"].NotModified)
		get()
		require.Empty(t, append(full, same...))
	})
}

// A loader of single ids that loads for a batch has the previous value of its id.
func TestALoaderOfSingleIDsHasThePreviousValueOfEach(t *testing.T) {
	t.Parallel()
	asidetest.InBubble(t, aside.Options{}, func(t *testing.T, c *aside.Cache) {
		var same atomic.Int64
		l := aside.NewLoader(c, *items(func(p *aside.Policy) { p.StaleIfError = ttl }), func(ctx context.Context, id int) (string, error) {
			if p, ok := aside.Previous[string](ctx); ok {
				if v, _ := p.Value(); v != strconv.Itoa(id) {
					return "", errors.New("the value of another id")
				}
				same.Add(1)
				return "", aside.ErrNotModified
			}
			return strconv.Itoa(id), nil
		})
		for range 3 {
			got, err := l.GetMany(t.Context(), []int{1, 2, 3})
			require.NoError(t, err)
			require.Equal(t, map[int]string{1: "1", 2: "2", 3: "3"}, got)
			time.Sleep(ttl)
		}
		require.EqualValues(t, 6, same.Load())
	})
}

package contract_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

// numbers are the fields of a struct that are a duration or another whole number.
func numbers(of any) (names []string) {
	typ := reflect.TypeOf(of)
	for i := range typ.NumField() {
		if f := typ.Field(i); f.Type.Kind() == reflect.Int || f.Type.Kind() == reflect.Int64 {
			names = append(names, f.Name)
		}
	}
	return names
}

// A number that an option or a policy may have is either refused by name, or does what it says, however large or small it is.
func TestNumbersOfEverySizeAreHeededOrRefused(t *testing.T) {
	t.Parallel()
	// What is kept although it may not, or the other way round: 1 is a nanosecond, a byte, an entry or a load.
	lost := map[string]bool{
		"Options.MaxBytes = 1": true, "Options.MaxValueBytes = 1": true,
		"Options.LoadTimeout = 1": true, "Policy.LoadTimeout = 1": true, // so no load is in time
		"Options.NegativeTTL = 1": true, "Policy.NegativeTTL = 1": true, "Options.NegativeTTL = -1": true, "Policy.NegativeTTL = -1": true,
	}
	refused := map[string]bool{
		"Options.MaxEntries = -1": true, "Options.MaxBytes = -1": true, "Options.MaxValueBytes = -1": true, "Options.MaxLoads = -1": true,
		"Options.OpTimeout = -1": true, "Options.LoadTimeout = -1": true, "Options.LeaseTTL = -1": true, "Options.LeaseTTL = 1": true,
		"Options.MaxBackoff = 1": true, "Options.MaxBackoff = -1": true,
		"Options.HotKeys = -1": true, "Options.HotKeys = 9223372036854775807": true, "Options.SlowLoad = -1": true,
		"Options.MaxValueBytes = 9223372036854775807": true, "Options.OpTimeout = 9223372036854775807": true,
		"Options.Stale = 1": true, "Options.StaleIfError = 1": true, "Options.SoftTimeout = 1": true, "Options.SoftTimeout = 9223372036854775807": true,
		"Policy.Stale = 1": true, "Policy.StaleIfError = 1": true, "Policy.SoftTimeout = 1": true, "Policy.SoftTimeout = 9223372036854775807": true,
		"Policy.TTL = -1": true, "Policy.TTL = 1": true, "Policy.LoadTimeout = -1": true, "Policy.Version = -1": true, "Policy.Version = 9223372036854775807": true,
		"Policy.MaxBatch = -1": true, "Policy.MemoryTTL = -1": true, "Policy.MemoryTTL = 1": true,
		"Policy.Place = -1": true, "Policy.Place = 9223372036854775807": true,
	}
	// With so little time Redis is not in use; whatever is answered comes from the loader.
	away := map[string]bool{"Options.OpTimeout = 1": true}
	seen := make(map[string]bool)
	for kind, of := range map[string]any{"Options": aside.Options{}, "Policy": aside.Policy{}} {
		for _, field := range numbers(of) {
			for _, n := range []int64{math.MaxInt64, math.MaxInt64 / 2, 1, -1} {
				name := fmt.Sprintf("%s.%s = %d", kind, field, n)
				seen[name] = true
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					for _, addr := range []string{"", redistest.Start(t).Addr()} {
						var o aside.Options
						if addr != "" {
							o = asidetest.At(addr)
						}
						o.Logger = asidetest.Quiet()
						p := aside.Policy{Name: "extreme", Category: "extreme", TTL: time.Hour}
						switch kind {
						case "Options":
							reflect.ValueOf(&o).Elem().FieldByName(field).SetInt(n)
						case "Policy":
							reflect.ValueOf(&p).Elem().FieldByName(field).SetInt(n)
						}
						o.Policies = []aside.Policy{p}
						c, err := aside.New(o)
						if refused[name] || n == math.MaxInt64/2 && refused[fmt.Sprintf("%s.%s = %d", kind, field, int64(math.MaxInt64))] {
							asidetest.RequireCode(t, err, aside.CodeInvalidOption)
							require.ErrorContains(t, err, field)
							continue
						}
						require.NoError(t, err)
						works(t, c, p, !lost[name] && !(away[name] && addr != ""))
						require.NoError(t, c.Close())
					}
				})
			}
		}
	}
	for _, list := range []map[string]bool{lost, refused, away} {
		for name := range list {
			require.True(t, seen[name], name)
		}
	}
}

// works asks a cache for what is there, what is not, and what fails.
func works(t *testing.T, c *aside.Cache, p aside.Policy, kept bool) {
	t.Helper()
	ctx := t.Context()
	loads := 0
	load := func(value string, err error) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { loads++; return value, err }
	}
	timeout := &aside.Error{Code: aside.CodeLoadTimeout}
	for range 3 {
		v, err := aside.GetOrLoad(ctx, c, p.Key("there"), load("v", nil))
		if err == nil {
			require.Equal(t, "v", v)
		} else {
			require.ErrorIs(t, err, timeout)
		}
		time.Sleep(2 * time.Millisecond) // longer than what is kept for a nanosecond
	}
	if kept {
		require.Equal(t, 1, loads)
	}
	loads = 0
	for range 3 {
		_, err := aside.GetOrLoad(ctx, c, p.Key("absent"), load("", aside.ErrNotFound))
		if !errors.Is(err, timeout) {
			require.ErrorIs(t, err, aside.ErrNotFound)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if kept {
		require.Equal(t, 1, loads)
	}
	down := errors.New("down")
	for range 3 {
		_, err := aside.GetOrLoad(ctx, c, p.Key("failing"), load("", down))
		if !errors.Is(err, timeout) {
			require.ErrorIs(t, err, down)
		}
	}
}

func TestWhatIsNotFoundIsNotCachedForLongerThanWhatIs(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		o    aside.Options
		p    aside.Policy
		want time.Duration
	}{
		"a short TTL":                 {p: aside.Policy{TTL: 2 * time.Second}, want: 2 * time.Second},
		"a long one":                  {p: aside.Policy{TTL: time.Hour}, want: 30 * time.Second},
		"a default beyond the TTL":    {o: aside.Options{NegativeTTL: time.Hour}, p: aside.Policy{TTL: time.Minute}, want: time.Minute},
		"a TTL that is overridden":    {o: aside.Options{TTLs: map[string]time.Duration{"absent": time.Second}}, p: aside.Policy{TTL: time.Hour}, want: time.Second},
		"of its own, beyond its TTL":  {p: aside.Policy{TTL: time.Second, NegativeTTL: time.Minute}, want: time.Minute},
		"as long as there is time":    {p: aside.Policy{TTL: time.Hour, NegativeTTL: math.MaxInt64}, want: 100 * 365 * 24 * time.Hour},
		"as long as that, by default": {o: aside.Options{NegativeTTL: math.MaxInt64}, p: aside.Policy{TTL: math.MaxInt64}, want: 100 * 365 * 24 * time.Hour},
		"not at all":                  {o: aside.Options{NegativeTTL: -1}, p: aside.Policy{TTL: time.Hour}, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.p.Name, test.p.Category = "absent", "absent"
			test.o.Policies = []aside.Policy{test.p}
			asidetest.InBubble(t, test.o, func(t *testing.T, c *aside.Cache) {
				r, err := aside.Lookup(t.Context(), c, test.p.Key("a"), func(context.Context) (int, error) { return 0, aside.ErrNotFound })
				require.ErrorIs(t, err, aside.ErrNotFound)
				require.Equal(t, test.want, r.TTL)
			})
		})
	}
}

func TestABackOffOfAgesHoldsBackForAges(t *testing.T) {
	t.Parallel()
	for _, pause := range []time.Duration{99 * 365 * 24 * time.Hour, math.MaxInt64} {
		asidetest.InBubble(t, aside.Options{Backoff: pause, MaxBackoff: pause}, func(t *testing.T, c *aside.Cache) {
			down := errors.New("down")
			for range 2 {
				_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), func(context.Context) (int, error) { return 0, down })
				require.Equal(t, down, err)
			}
			time.Sleep(time.Minute)
			_, err := aside.GetOrLoad(t.Context(), c, asidetest.Items.Key("a"), asidetest.Value("v"))
			asidetest.RequireCode(t, err, aside.CodeBackoff)
			require.ErrorIs(t, err, down)
		})
	}
}

func TestAllThatMayTakeManyBytesIsStillBoundedByNumber(t *testing.T) {
	t.Parallel()
	c, ctx := asidetest.NewCache(t, aside.Options{MaxEntries: 1000, MaxBytes: math.MaxInt64}), t.Context()
	for i := range 20_000 {
		require.NoError(t, aside.Set(ctx, c, asidetest.Items.Key(i), i))
	}
	asidetest.Eventually(t, "the bound holds", func() bool {
		n := 0
		for range c.Keys(ctx, aside.Pattern{}) {
			n++
		}
		return n <= 1000 && n > 900
	})
}

// A value that takes most of memory is loaded as often as another one, whatever else was read before.
func TestAValueThatTakesMostOfMemoryIsKept(t *testing.T) {
	t.Parallel()
	const most = 1_000_000
	c, ctx := asidetest.NewCache(t, aside.Options{MaxBytes: most}), t.Context()
	load := func(size int, loads *int) func(context.Context) ([]byte, error) {
		return func(context.Context) ([]byte, error) { *loads++; return make([]byte, size), nil }
	}
	smalls, larges := 0, 0
	for range 20 {
		for i := range 60 {
			_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("small", i), load(most/100, &smalls))
			require.NoError(t, err)
		}
	}
	hits := 0 // in a row
	asidetest.Eventually(t, "memory, which is tidied up beside the callers, keeps it", func() bool {
		before := larges
		_, err := aside.GetOrLoad(ctx, c, asidetest.Items.Key("large"), load(most*6/10, &larges))
		require.NoError(t, err)
		if hits++; larges > before {
			hits = 0
		}
		return hits == 100
	})
}

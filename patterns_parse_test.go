package aside_test

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

func TestPatternsThatSomebodyHasWritten(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"sessions:*", "sessions:ABC:*", "sessions:ABC", "sessions::*", "sessions:a%2Ab:*", "sessions:%25:*", "sessions:%FF*", "sessions:[a-c]?:*",
		"sessions:[^a]", `sessions:\:`, "sessions:ü*", "sessions:*:a:*:b:*:c:*", "sessions:" + strings.Repeat("x", 119), "my sessions:*", "sessions:%C2%85*",
	} {
		p, err := aside.ParsePattern(good)
		require.NoError(t, err, good)
		require.Equal(t, good, p.String())
		require.NoError(t, p.Err())
	}
	for bad, says := range map[string]string{
		"":                                     "is empty",
		"*":                                    "does not begin with a category",
		"**":                                   "does not begin with a category",
		"?essions:*":                           "does not begin with a category",
		"[s]essions:*":                         "does not begin with a category",
		`\sessions:*`:                          "does not begin with a category",
		"sess*:a":                              "does not begin with a category",
		"sessions*":                            "does not begin with a category",
		":a":                                   "does not begin with a category",
		"sessions":                             "write the category, a colon",
		"ses{s}ions:*":                         "not allowed in categories",
		"ses%3Aions:*":                         "not allowed in categories",
		"sessions:" + strings.Repeat("x", 120): "129 bytes",
		"sessions:\xff*":                       "not valid UTF-8",
		"sessions:{a}:*":                       "write %7B",
		"sessions:a}:*":                        "write %7D",
		"sessions:a]:*":                        "write %5D",
		"sessions:a\n*":                        "write %0A",
		"sessions:\u0085*":                     "write %C2%85",
		`sessions:\*:*`:                        "write %2A",
		`sessions:\%:*`:                        "write %25",
		`sessions:a\`:                          "ends with a backslash",
		"sessions:100%":                        "%25",
		"sessions:%2a:*":                       "upper-case",
		"sessions:%zz:*":                       "upper-case",
		"sessions:%4":                          "upper-case",
		"sessions:%41:*":                       `do not escape 'A'`,
		"sessions:[a":                          "has no ]",
		"sessions:[]":                          "is empty",
		"sessions:[ü]":                         "beyond ASCII",
		"sessions:*a*b*c*d*e":                  "more than 4 wildcards",
	} {
		p, err := aside.ParsePattern(bad)
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidPattern}, "%q", bad)
		require.ErrorContains(t, err, says, "%q", bad)
		require.Empty(t, p.String())
	}
}

func TestPatternsOfParts(t *testing.T) {
	t.Parallel()
	type id string
	require.Equal(t, "items", asidetest.Items.Match().String())
	require.Equal(t, "items:*", asidetest.Items.Match(aside.Wildcard).String())
	require.Equal(t, "items:a%2A:7:*", asidetest.Items.Match(id("a*"), uint8(7), aside.Wildcard).String())
	require.Equal(t, "items:*:list", asidetest.Items.Match(aside.Wildcard, "list").String())
	require.NoError(t, asidetest.Items.Match(strings.Repeat("x", 10_000), aside.Wildcard).Err(), "code is trusted with its lengths")
	w := aside.Wildcard
	for name, p := range map[string]aside.Pattern{
		"a part of another type": asidetest.Items.Match(1.5), "nil": asidetest.Items.Match(nil), "too many wildcards": asidetest.Items.Match(w, w, w, w, w),
		"a nil policy": (*aside.Policy)(nil).Match("a"), "no category": (&aside.Policy{}).Match(w), "a bad one": (&aside.Policy{Category: "a:b"}).Match(w),
	} {
		require.ErrorIs(t, p.Err(), &aside.Error{Code: aside.CodeInvalidPattern}, name)
		require.Empty(t, p.String(), name)
	}
	require.Error(t, asidetest.Items.Key(aside.Wildcard).Err(), "no key has one")
}

func TestABadPatternInvalidatesNothing(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		asidetest.Stored(t, c, asidetest.Items.Key("a"), "v")
		for _, p := range []aside.Pattern{{}, asidetest.Items.Match(1.5)} {
			_, err := c.InvalidatePattern(t.Context(), p)
			require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidPattern})
		}
		v, err := aside.Get[string](t.Context(), c, asidetest.Items.Key("a"))
		require.NoError(t, err)
		require.Equal(t, "v", v)
		r, err := c.InvalidatePattern(t.Context(), asidetest.Items.Match("a"))
		require.NoError(t, err)
		require.EqualValues(t, 1, r.Removed, "one key is a pattern too")
		require.NoError(t, c.Close())
		_, err = c.InvalidatePattern(t.Context(), asidetest.Items.Match("a"))
		require.ErrorIs(t, err, aside.ErrClosed)
	})
}

func TestIDsOfAnyLengthAreInvalidatedByTheirOwnPattern(t *testing.T) {
	t.Parallel()
	asidetest.EveryMode(t, func(t *testing.T, newCache func(aside.Options) *aside.Cache) {
		c := newCache(aside.Options{})
		long := strings.Repeat("x*", 1000)
		asidetest.Stored(t, c, asidetest.Items.Key(long, "a"), "v")
		asidetest.Stored(t, c, asidetest.Items.Key(long+"x", "a"), "v")
		_, err := aside.ParsePattern(asidetest.Items.Key(long).String() + ":*")
		require.ErrorContains(t, err, "more than 128")
		r, err := c.InvalidatePattern(t.Context(), asidetest.Items.Match(long, aside.Wildcard))
		require.NoError(t, err)
		removed, err := r.WaitCleanup(t.Context()) // so long a pattern may take a server longer than a caller waits
		require.NoError(t, err)
		require.EqualValues(t, 1, removed)
		_, err = aside.Get[string](t.Context(), c, asidetest.Items.Key(long+"x", "a"))
		require.NoError(t, err)
	})
}

func FuzzParsePattern(f *testing.F) {
	for _, seed := range []string{"sessions:*", "", "*", "s:[a-\\", "s:%2A*", "s:{", "a:[^]]", `a:\\`, "a:%", "a:[%]*"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := aside.ParsePattern(text)
		if err != nil {
			require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidPattern})
			require.True(t, utf8.ValidString(err.Error()))
			return
		}
		require.Equal(t, text, p.String())
		require.LessOrEqual(t, len(text), 128)
		category, _, ok := strings.Cut(text, ":")
		require.True(t, ok)
		require.NotEmpty(t, category)
		require.False(t, strings.ContainsAny(category, "*?[]\\{}%"), "the prefix is literal")
		if !strings.ContainsAny(text, "*?[]\\") && !beyond.MatchString(text) {
			require.Equal(t, text, escapedAgain(category, text), "what has no wildcard is a key")
		}
	})
}

// beyond is an escape of a byte beyond ASCII, which is one in keys only where it is no UTF-8.
var beyond = regexp.MustCompile("%[89A-F]")

// escapedAgain is the key with the parts of a text that looks like a key.
func escapedAgain(category, text string) string {
	fields := strings.Split(text, ":")[1:]
	parts := make([]any, len(fields))
	for i, field := range fields {
		var b strings.Builder
		for j := 0; j < len(field); j++ {
			if field[j] != '%' {
				b.WriteByte(field[j])
				continue
			}
			const digits = "0123456789ABCDEF"
			b.WriteByte(byte(strings.IndexByte(digits, field[j+1])<<4 | strings.IndexByte(digits, field[j+2])))
			j += 2
		}
		parts[i] = b.String()
	}
	return (&aside.Policy{Category: category}).Key(parts...).String()
}

package glob

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

func TestPatternsMatchWholeTexts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"", []string{""}, []string{"a"}},
		{"a:b", []string{"a:b"}, []string{"a:", "a:bc", "xa:b", "A:b"}},
		{"a:*", []string{"a:", "a:b", "a:b:c", "a:*"}, []string{"a", "b:a:"}},
		{"a:*:c", []string{"a::c", "a:b:c", "a:b:b:c", "a:c:c"}, []string{"a:c", "a:b:cc"}},
		{"a*b*c", []string{"abc", "abbcc", "a-b-c", "abcbc"}, []string{"acb", "ab"}},
		{"a**b", []string{"ab", "a-b"}, []string{"a"}},
		{"a?c", []string{"abc", "a?c"}, []string{"ac", "abbc"}},
		{"a[bc]d", []string{"abd", "acd"}, []string{"ad", "abcd", "a[d"}},
		{"a[^b]", []string{"ac", "a^"}, []string{"ab", "a"}},
		{"a[b-d]", []string{"ab", "ac", "ad"}, []string{"a-", "ae"}},
		{"a[d-b]", []string{"ab", "ac", "ad"}, []string{"a-"}},
		{`a[\]]`, []string{"a]"}, []string{`a\`}},
		{"a[-b]", []string{"a-", "ab"}, []string{"ac"}},
		{`a\*`, []string{"a*"}, []string{"ab", `a\*`}},
		{`\a`, []string{"a"}, []string{`\a`}},
		{"ü?", []string{"üa"}, []string{"üü"}}, // ? is a byte
	} {
		g, err := Parse(c.pattern)
		require.NoError(t, err, c.pattern)
		for _, text := range c.yes {
			require.True(t, g.Match(text), "%q %q", c.pattern, text)
			require.True(t, strings.HasPrefix(text, g.Prefix()))
		}
		for _, text := range c.no {
			require.False(t, g.Match(text), "%q %q", c.pattern, text)
		}
	}
}

func TestWhatRedisReadsInAnotherWayThanItLooksIsRefused(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]error{
		`a\`: ErrEscape, "a[": ErrClass, "a[b": ErrClass, "a[^": ErrClass, `a[\]`: ErrClass, "a[b-]": ErrClass,
		"a[]": ErrEmpty, "a[^]": ErrEmpty, "a[ü]": ErrRange, "a[a-ü]": ErrRange, "a[\\\xff]": ErrRange,
	} {
		_, err := Parse(pattern)
		require.ErrorIs(t, err, want, pattern)
	}
}

func TestPrefixAndStars(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]struct {
		prefix string
		stars  int
	}{"": {"", 0}, "a:b": {"a:b", 0}, "a:*": {"a:", 1}, "*": {"", 1}, `a\*b?`: {"a*b", 0}, "a**b*": {"a", 2}, "a[b]*": {"a", 1}} {
		g, err := Parse(pattern)
		require.NoError(t, err)
		require.Equal(t, want.prefix, g.Prefix(), pattern)
		require.Equal(t, want.stars, g.Stars(), pattern)
	}
}

func TestMatchingTakesNoLongerThanTheLengthsMultiplied(t *testing.T) {
	t.Parallel()
	g, err := Parse(strings.Repeat("*a", 40) + "*b")
	require.NoError(t, err)
	began := time.Now()
	require.False(t, g.Match(strings.Repeat("a", 10_000)))
	require.Less(t, time.Since(began), 5*time.Second)
}

// few are the characters that patterns and texts are made of: so few that they often match.
var few = []string{"a", "b", "c", ":", "*", "?", "[", "]", "^", "-", "\\", "ü", "\n", "%"}

func random(n int, of []string) string {
	var b strings.Builder
	for range rand.IntN(n) {
		b.WriteString(of[rand.IntN(len(of))])
	}
	return b.String()
}

func TestMatchAgreesWithTheServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	texts := map[string]bool{}
	for len(texts) < 400 {
		if text := random(8, few); text != "" {
			texts[text] = true
		}
	}
	for text := range texts {
		server.MustDo(t, "SET", text, "")
	}
	matches := 0
	for range 3000 {
		pattern := random(7, few)
		g, err := Parse(pattern)
		if err != nil {
			continue
		}
		var ours, theirs []string
		for text := range texts {
			if g.Match(text) {
				ours = append(ours, text)
			}
		}
		for _, text := range server.MustDo(t, "KEYS", pattern).([]any) {
			theirs = append(theirs, text.(string))
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		require.Equal(t, theirs, ours, "%q", pattern)
		matches += len(ours)
	}
	require.Greater(t, matches, 1000)
}

func FuzzMatchAgreesWithTheServer(f *testing.F) {
	for _, seed := range [][2]string{{"a*b?[c-e]", "axbxd"}, {`\*[^\]-a]*`, "*b"}, {"[a-]]", "a"}, {"***?", "a"}, {"a[b-*c", "a"}} {
		f.Add(seed[0], seed[1])
	}
	server := redistest.Start(f)
	f.Fuzz(func(t *testing.T, pattern, text string) {
		g, err := Parse(pattern)
		if err != nil || text == "" { // no key is empty, and the server's answer for one depends on how it asks itself
			return
		}
		server.MustDo(t, "SET", text, "")
		theirs := len(server.MustDo(t, "KEYS", pattern).([]any)) == 1
		server.MustDo(t, "DEL", text)
		if ours := g.Match(text); ours != theirs {
			t.Errorf("%q and %q: %v here, %v there", pattern, text, ours, theirs)
		}
		if g.Match(text) && !strings.HasPrefix(text, g.Prefix()) {
			t.Errorf("%q matches %q, which has not its prefix", pattern, text)
		}
	})
}

package keyspace

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/wire"
)

func FuzzUnescapeUndoesAppendEscaped(f *testing.F) {
	for _, text := range []string{"", "plain", "a:b*c?d[e]f\\g{h}i%j", "\x00\xff\u0085é", "%3A"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		escaped := string(AppendEscaped(nil, text))
		require.True(t, utf8.ValidString(escaped))
		require.False(t, strings.ContainsAny(escaped, ":*?[]\\{}"))
		again, ok := Unescape(escaped)
		require.True(t, ok)
		require.Equal(t, text, again)
		require.Equal(t, escaped == text, Plain(text))
	})
}

func TestUnescapeRefusesAPercentSignThatBeginsNoEscape(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"%", "a%4", "%zz", "%3a", "100%"} {
		_, ok := Unescape(text)
		require.False(t, ok, text)
		require.Equal(t, text, GivenName(text))
	}
}

func TestNamedTags(t *testing.T) {
	t.Parallel()
	tags, err := NamedTags([]string{"user 42", "a:b"})
	require.NoError(t, err)
	require.Equal(t, []string{"%t:user 42", "%t:a%3Ab"}, tags)
	require.Equal(t, []string{"user 42", "a:b"}, GivenNames(append(tags, All, CategoryTag("models")), func(tag string) string { return tag }))

	_, err = NamedTags([]string{"good", ""})
	require.ErrorContains(t, err, "empty")
	longest := strings.Repeat("x", wire.MaxTagName-len(NamedPrefix))
	_, err = NamedTags([]string{longest})
	require.NoError(t, err)
	_, err = NamedTags([]string{longest + "x"})
	require.ErrorContains(t, err, "at most 509 bytes")
}

func TestOnlyNamesOfTagsAreTags(t *testing.T) {
	t.Parallel()
	for _, name := range []string{All, Sequence, CategoryTag("models"), "%t:a"} {
		require.True(t, IsTag(name), name)
	}
	for _, name := range []string{"models:a", PatternPrefix + "models:*", "%tags:", "all", ""} {
		require.False(t, IsTag(name), name)
	}
	require.True(t, OnlyTags(nil))
	require.True(t, OnlyTags([]wire.Tag{{Name: All}, {Name: "%t:a"}}))
	require.False(t, OnlyTags([]wire.Tag{{Name: All}, {Name: "models:a"}}))
}

func TestKeysOfCategories(t *testing.T) {
	t.Parallel()
	one, two := map[string]bool{"models": true}, map[string]bool{"models": true, "user": true}
	require.Equal(t, "models*", ScanPattern(one))
	require.Empty(t, ScanPattern(two))
	require.True(t, InOneOf(one, "models:a:b"))
	require.True(t, InOneOf(one, "models"))
	require.False(t, InOneOf(one, "user:a"))
	require.True(t, InOneOf(two, "user:a"))
	require.False(t, InOneOf(one, "models:{a}:lease"), "names with braces are none of keys")
}

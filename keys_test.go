package aside_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

func TestKeysReadAsDocumented(t *testing.T) {
	t.Parallel()
	for want, key := range map[string]aside.Key{
		"models:all:all":             aside.TTL.ModelsAll.Key("all", "all"),
		"models:openrouter:all":      aside.TTL.ModelsGateway.Key("openrouter", "all"),
		"sessions:ABC123:list:50:0":  aside.TTL.SessionsList.Key("ABC123", "list", 50, 0),
		"sessions:ABC123:456:full":   aside.TTL.SessionDetail.Key("ABC123", 456, "full"),
		"user:DEF456:profile":        aside.TTL.UserProfile.Key("DEF456", "profile"),
		"stats:ABC123":               aside.TTL.ChatStats.Key("ABC123"),
		"activity:ABC123:stats:day":  aside.TTL.ActivityStats.Key("ABC123", "stats", "day"),
		"rankings:models:all":        aside.TTL.RankingsModels.Key("models", "all"),
		"models":                     aside.TTL.ModelsAll.Key(),
		"models:":                    aside.TTL.ModelsAll.Key(""),
		"models::":                   aside.TTL.ModelsAll.Key("", ""),
		"sessions:search:größe 猫":    aside.TTL.SearchResults.Key("search", "größe 猫"),
		"models:a-b_c.d~e/f@g+h=i&j": aside.TTL.ModelDetail.Key("a-b_c.d~e/f@g+h=i&j"),
	} {
		require.NoError(t, key.Err(), want)
		require.Equal(t, want, key.String())
	}
}

// Short texts are kept in the key itself, long ones beside it.
func TestKeysAreEqualIfTheirTextsAre(t *testing.T) {
	t.Parallel()
	policy := &aside.Policy{Category: "items", TTL: time.Minute}
	c := asidetest.NewCache(t, aside.Options{})
	seen := map[aside.Key]string{}
	for length := range 300 {
		for _, part := range []string{strings.Repeat("a", length), strings.Repeat("a", length) + "\x00"} {
			key, want := policy.Key(part), "items:"+strings.ReplaceAll(part, "\x00", "%00")
			require.Equal(t, want, key.String())
			require.True(t, key == policy.Key(strings.Clone(part)), want)
			parsed, err := policy.ParseKey(want)
			require.NoError(t, err)
			require.True(t, key == parsed, want)
			require.NotContains(t, seen, key, want)
			seen[key] = want

			_, err = aside.GetOrLoad(t.Context(), c, key, func(context.Context) (string, error) { return want, nil })
			require.NoError(t, err)
		}
	}
	for key, want := range seen {
		got, err := aside.Get[string](t.Context(), c, key)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.True(t, policy.Key(7) == policy.Key("7"))
}

func TestWhatMeansSomethingToRedisOrToTheKeyIsEscaped(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		":": "%3A", "*": "%2A", "?": "%3F", "[": "%5B", "]": "%5D", `\`: "%5C", "{": "%7B", "}": "%7D", "%": "%25",
		"\x00": "%00", "\n": "%0A", "\r": "%0D", "\x1b": "%1B", "\x7f": "%7F",
		"\u0085":       "%C2%85", // a control character above ASCII
		"\u009f":       "%C2%9F",
		"\x85":         "%85", // not UTF-8
		"\xff\xfe":     "%FF%FE",
		"\xc3":         "%C3", // the first half of a character
		"\xed\xa0\x80": "%ED%A0%80",
		"\ufffd":       "\ufffd", // what a decoder puts for bytes that are not UTF-8 is text itself
		"%3A":          "%253A",
		"a:b*c":        "a%3Ab%2Ac",
		"é":            "é",
		"":             "",
	} {
		key := asidetest.Keyed.Key(text)
		require.NoError(t, key.Err(), "%q", text)
		require.Equal(t, "k:"+want, key.String(), "%q", text)
	}
}

type (
	namedString string
	namedInt    int
	namedInt8   int8
	namedUint64 uint64
	namedBytes  []byte
	namedFloat  float32
)

func TestIntegersOfEveryWidthAndNamedTypesMakeKeys(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		part any
		want string
	}{
		{0, "0"}, {-1, "-1"}, {math.MinInt, strconv.Itoa(math.MinInt)},
		{int8(math.MinInt8), "-128"}, {int16(math.MinInt16), "-32768"}, {int32(math.MinInt32), "-2147483648"},
		{int64(math.MinInt64), "-9223372036854775808"}, {int64(math.MaxInt64), "9223372036854775807"},
		{uint(7), "7"}, {uint8(math.MaxUint8), "255"}, {uint16(math.MaxUint16), "65535"}, {uint32(math.MaxUint32), "4294967295"},
		{uint64(math.MaxUint64), "18446744073709551615"}, {uintptr(9), "9"},
		{namedString("a:b"), "a%3Ab"}, {namedInt(-5), "-5"}, {namedInt8(-128), "-128"}, {namedUint64(math.MaxUint64), "18446744073709551615"},
		{time.Second, "1000000000"},
	} {
		key := asidetest.Keyed.Key(tc.part)
		require.NoError(t, key.Err(), "%T", tc.part)
		require.Equal(t, "k:"+tc.want, key.String(), "%T", tc.part)
	}
	require.Equal(t, asidetest.Keyed.Key("50"), asidetest.Keyed.Key(50), "an integer makes the key of its text")
}

// badKeys are keys that every call must refuse, by what their error names.
func badKeys() map[string]aside.Key {
	text := "s3cret"
	return map[string]aside.Key{
		"nil":                    asidetest.Keyed.Key("ok", nil),
		"float64":                asidetest.Keyed.Key(1.5),
		"aside_test.namedFloat":  asidetest.Keyed.Key(namedFloat(1)),
		"complex128":             asidetest.Keyed.Key(1i),
		"bool":                   asidetest.Keyed.Key(true),
		"[]uint8":                asidetest.Keyed.Key([]byte(text)),
		"aside_test.namedBytes":  asidetest.Keyed.Key(namedBytes(text)),
		"[]string":               asidetest.Keyed.Key([]string{text}),
		"*string":                asidetest.Keyed.Key(&text),
		"struct { Name string }": asidetest.Keyed.Key(struct{ Name string }{text}),
		"map[string]int":         asidetest.Keyed.Key(map[string]int{text: 1}),
		"*errors.errorString":    asidetest.Keyed.Key(aside.ErrMiss),
		"func()":                 asidetest.Keyed.Key(func() {}),
		"zero Key":               {},
		"nil Policy":             (*aside.Policy)(nil).Key("a"),
	}
}

func TestAnInvalidKeyIsRefusedByEveryCall(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	for names, key := range badKeys() {
		require.Empty(t, key.String(), names)
		asidetest.RequireCode(t, key.Err(), aside.CodeInvalidKey, names)
		for call, do := range asidetest.KeyCalls(t.Context(), c, key) {
			err := do()
			asidetest.RequireCode(t, err, aside.CodeInvalidKey, "%s: %s", call, names)
			require.ErrorContains(t, err, names, call)
			require.NotContains(t, err.Error(), "s3cret", "a part's value may be private")
		}
	}
	require.ErrorContains(t, asidetest.Keyed.Key("ok", 1.5).Err(), "part 2 of a key of policy keyed")
	require.ErrorContains(t, asidetest.Keyed.Key(1.5).Err(), "use a string or an integer")
	require.ErrorContains(t, aside.Key{}.Err(), "Policy.Key")
	require.Empty(t, c.Metrics().Labels, "a refused call counts as none")
}

func TestOneBadKeyOfSeveralInvalidatesNothing(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	a, b := asidetest.Keyed.Key("a"), asidetest.Keyed.Key("b")
	require.NoError(t, aside.Set(t.Context(), c, a, "A"))
	require.NoError(t, aside.Set(t.Context(), c, b, "B"))
	for _, bad := range badKeys() {
		for _, keys := range [][]aside.Key{{bad, a, b}, {a, bad, b}, {a, b, bad}} {
			receipt, err := c.Invalidate(t.Context(), keys...)
			asidetest.RequireCode(t, err, aside.CodeInvalidKey)
			require.Zero(t, receipt)
		}
	}
	for key, want := range map[aside.Key]string{a: "A", b: "B"} {
		got, err := aside.Get[string](t.Context(), c, key)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestOneBadKeyOfABatchLoadsNothing(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	for _, bad := range badKeys() {
		values, err := aside.GetOrLoadMany(t.Context(), c, []int{1, 2, 3}, func(id int) aside.Key {
			if id == 3 {
				return bad
			}
			return asidetest.Keyed.Key(id)
		}, func(context.Context, []int) (map[int]string, error) {
			t.Error("the loader was called")
			return nil, nil
		})
		asidetest.RequireCode(t, err, aside.CodeInvalidKey)
		require.ErrorContains(t, err, "id 2 of the batch")
		require.Nil(t, values)
	}
}

func TestInvalidatingOneUserLeavesThoseWhoseIDsLookAlike(t *testing.T) {
	t.Parallel()
	c := asidetest.NewCache(t, aside.Options{})
	ids := []string{"a", "a:profile", "*", "?", "[a]", "a*", "%61", "a%3Aprofile", "", "a\x00", "A"}
	for _, id := range ids {
		require.NoError(t, aside.Set(t.Context(), c, aside.TTL.UserProfile.Key(id, "profile"), id))
	}
	for i, gone := range ids {
		receipt, err := c.Invalidate(t.Context(), aside.TTL.UserProfile.Key(gone, "profile"))
		require.NoError(t, err)
		require.EqualValues(t, 1, receipt.Removed, "%q", gone)
		require.True(t, receipt.Confirmed)
		for _, left := range ids[i+1:] {
			got, err := aside.Get[string](t.Context(), c, aside.TTL.UserProfile.Key(left, "profile"))
			require.NoError(t, err, "%q after %q", left, gone)
			require.Equal(t, left, got)
		}
	}
}

func TestHashIDIsShortURLSafeAndTheSameInEveryProcess(t *testing.T) {
	t.Parallel()
	secret := []byte("0123456789abcdef")
	one, two := asidetest.NewCache(t, aside.Options{Secret: aside.NewSecret(secret)}), asidetest.NewCache(t, aside.Options{Secret: aside.NewSecret(secret)})
	other := asidetest.NewCache(t, aside.Options{Secret: aside.NewSecret("0123456789abcdeF")})
	short, seen := regexp.MustCompile(`^[A-Za-z0-9_-]{16}$`), map[string]string{}
	for i := range 10_000 {
		id := fmt.Sprintf("user-%d", i)
		h := one.HashID(id)
		require.Regexp(t, short, h)
		require.Empty(t, seen[h], id)
		seen[h] = id
		require.Equal(t, h, two.HashID(id))
		require.NotEqual(t, h, other.HashID(id))
		require.Equal(t, "user:"+h+":profile", aside.TTL.UserProfile.Key(h, "profile").String(), "nothing in it needs an escape")
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("user-4711"))
	require.Equal(t, base64.URLEncoding.EncodeToString(mac.Sum(nil)[:12]), one.HashID("user-4711"))
	require.Regexp(t, short, one.HashID(""))
}

// dictionary looks the plain hashes of a lot of ids up in keys, as one would who has read them from a server.
func dictionary(keys map[string]bool) (found []string) {
	for i := range 200_000 {
		id := "user-" + strconv.Itoa(i)
		sum := sha256.Sum256([]byte(id))
		if keys[base64.URLEncoding.EncodeToString(sum[:12])] {
			found = append(found, id)
		}
	}
	return found
}

func TestADictionaryFindsIDsOnlyWithoutASecret(t *testing.T) {
	t.Parallel()
	ids := []string{"user-7", "user-4711", "user-199999"}
	hashes := func(c *aside.Cache) map[string]bool {
		m := map[string]bool{}
		for _, id := range ids {
			h := c.HashID(id)
			m[h] = true
			require.NotContains(t, aside.TTL.UserProfile.Key(h, "profile").String(), id)
		}
		return m
	}
	require.Empty(t, dictionary(hashes(asidetest.NewCache(t, aside.Options{Secret: aside.NewSecret(bytes.Repeat([]byte{7}, 16))}))))
	// The documented weakness, and the proof that the dictionary would find something.
	require.Equal(t, ids, dictionary(hashes(asidetest.NewCache(t, aside.Options{}))))
	require.Equal(t, ids, dictionary(hashes(nil)), "a nil cache has no secret")
}

func TestHashIDWithoutASecretWarnsOnce(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"", "0123456789abcdef"} {
		var log bytes.Buffer
		c := asidetest.NewCache(t, aside.Options{Secret: aside.NewSecret(secret), Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
		require.Empty(t, log.String(), "only its use is worth a warning")
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() { c.HashID(fmt.Sprint("private-", i)) })
		}
		wg.Wait()
		if secret != "" {
			require.Empty(t, log.String())
			continue
		}
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		var line struct{ Level, Msg string }
		require.NoError(t, json.Unmarshal(log.Bytes(), &line))
		require.Equal(t, "WARN", line.Level)
		require.Contains(t, line.Msg, "Options.Secret")
		require.NotContains(t, log.String(), "private")
	}
}

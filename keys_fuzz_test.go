package aside_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// partsOf makes a list of parts of a fuzzer's bytes: a length, that many bytes, and so on.
func partsOf(data []byte) []string {
	var parts []string
	for len(data) > 0 {
		n := min(int(data[0]), len(data)-1)
		parts = append(parts, string(data[1:1+n]))
		data = data[1+n:]
	}
	return parts
}

// bytesOf is the inverse, for seeds.
func bytesOf(parts ...string) []byte {
	var data []byte
	for _, p := range parts {
		data = append(append(data, byte(len(p))), p...)
	}
	return data
}

func keyOf(parts []string) aside.Key {
	list := make([]any, len(parts))
	for i, p := range parts {
		list[i] = p
	}
	return asidetest.Keyed.Key(list...)
}

// unescaped reads a key back into its parts, by a decoder that knows nothing of the library.
func unescaped(t *testing.T, key string) []string {
	fields := strings.Split(key, ":")
	if fields[0] != asidetest.Keyed.Category {
		t.Fatalf("%q does not begin with its category", key)
	}
	parts := fields[1:]
	for i, field := range parts {
		var err error
		if parts[i], err = url.PathUnescape(field); err != nil {
			t.Fatalf("%q: %v", key, err)
		}
	}
	return parts
}

func FuzzKey(f *testing.F) {
	for _, seed := range [][2][]byte{
		{bytesOf(), bytesOf("")},
		{bytesOf(""), bytesOf("", "")},
		{bytesOf("a:b"), bytesOf("a", "b")},
		{bytesOf("a%3Ab"), bytesOf("a:b")},
		{bytesOf("%"), bytesOf("%25")},
		{bytesOf("\u0085"), bytesOf("\x85")},
		{bytesOf("\xc2", "\x85"), bytesOf("\xc2\x85")},
		{bytesOf("\xff"), bytesOf("\ufffd")},
		{bytesOf(`*?[]\{}`), bytesOf("\x00\n\x7f")},
		{bytesOf("e\u0301"), bytesOf("é")},
		{bytesOf("\xf0\x9f\x98"), bytesOf("😀")},
		{bytesOf("same", "parts"), bytesOf("same", "parts")},
		{[]byte{9, 'x'}, bytesOf("x")}, // the same list from other bytes
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		left, right := partsOf(a), partsOf(b)
		for _, parts := range [][]string{left, right} {
			key := keyOf(parts)
			if err := key.Err(); err != nil {
				t.Fatalf("%q: %v", parts, err)
			}
			if !utf8.ValidString(key.String()) {
				t.Errorf("%q makes %q, which is not UTF-8", parts, key)
			}
			if got := unescaped(t, key.String()); !slices.Equal(got, parts) {
				t.Errorf("%q makes %q, which reads back as %q", parts, key, got)
			}
			if strings.ContainsAny(key.String(), `*?[]\{}`) || strings.ContainsFunc(key.String(), unicode.IsControl) {
				t.Errorf("%q makes %q, which means something to Redis", parts, key)
			}
			if n := strings.Count(key.String(), ":"); n != len(parts) {
				t.Errorf("%q makes %q, which has %d colons", parts, key, n)
			}
		}
		if same := slices.Equal(left, right); same != (keyOf(left).String() == keyOf(right).String()) {
			t.Errorf("%q and %q: equal is %v, and their keys are %q and %q", left, right, same, keyOf(left), keyOf(right))
		}
	})
}

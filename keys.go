package aside

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"unsafe"

	"github.com/gatewayz/aside/internal/keyspace"
)

// A Key names one cached value. Policy.Key makes it. A Key whose text has up to 39 bytes is made without an allocation. If you use a longer one
// often, make it once: a hit then allocates nothing. Keys can be compared with ==, and be the keys of a map. The zero Key is invalid, and so is
// a Key with a part that is neither a string nor an integer. Every call with an invalid Key fails with CodeInvalidKey.
type Key struct {
	short  [39]byte // first, at an aligned offset: a hit takes a tenth longer otherwise
	form   uint8    // how many bytes of short are the text; or longKey, invalidKey
	policy *Policy
	other  string // the text of a longer key; why an invalid key is invalid
}

// The forms of keys whose text is not in short. A text has one form, and the rest of short is zero: so keys are equal if their texts are.
const (
	longKey    = 254
	invalidKey = 255
)

// keyOf makes a key with a text.
func (p *Policy) keyOf(text []byte) Key {
	k := Key{policy: p}
	if len(text) > len(k.short) {
		k.form, k.other = longKey, string(text)
		return k
	}
	k.form = uint8(copy(k.short[:], text))
	return k
}

// String returns the key's text, such as "sessions:ABC123:list:50:0", or "" for an invalid key. It is the name in Redis without the Namespace.
func (k Key) String() string {
	switch k.form {
	case invalidKey:
		return ""
	case longKey:
		return k.other
	}
	return string(k.short[:k.form])
}

// view is String without an allocation. It is for a lookup in memory, which does not keep the text: the text is good while *k is not changed.
func (k *Key) view() string {
	switch {
	case int(k.form) <= len(k.short):
		return unsafe.String(&k.short[0], k.form)
	case k.form == longKey:
		return k.other
	}
	return ""
}

// Err returns nil for a valid key, otherwise an *Error with CodeInvalidKey that names the invalid part.
func (k Key) Err() error {
	switch {
	case k.form == invalidKey:
		return &Error{Code: CodeInvalidKey, Message: k.other}
	case k.policy == nil:
		return &Error{Code: CodeInvalidKey, Message: "the zero Key: make keys with Policy.Key"}
	}
	return nil
}

// Key builds the key of one value from the policy's category and parts, joined by colons:
//
//	aside.TTL.SessionsList.Key(c.HashID(user), "list", 50, 0)   // sessions:…:list:50:0
//
// A part is a string or an integer, or of a type based on one. The bytes : * ? [ ] \ { } %, control characters, and bytes that are not UTF-8
// are percent-escaped: a:b becomes a%3Ab. So different strings never make the same key, and no string can pass for several parts. An integer
// is written in decimal: the integer 7 and the string "7" make the same key.
//
// The policy must not be changed afterwards: the key refers to it.
func (p *Policy) Key(parts ...any) Key {
	if p == nil {
		return Key{form: invalidKey, other: "a key of a nil Policy: declare one with a Category and a TTL"}
	}
	var buf [usualKey]byte
	b := append(buf[:0], p.Category...)
	for i, part := range parts {
		var ok bool
		if b, ok = appendPart(b, part); !ok {
			return Key{policy: p, form: invalidKey, other: fmt.Sprintf("part %d of a key of policy %s is a %s: use a string or an integer", i+1, p.name(), typeName(part))}
		}
	}
	return p.keyOf(b)
}

// usualKey is more bytes than the text of a key mostly has.
const usualKey = 128

// appendPart appends a colon and a part. It reports false if the part can be in no key.
func appendPart(b []byte, part any) ([]byte, bool) {
	b = append(b, ':')
	switch v := part.(type) {
	case string:
		return keyspace.AppendEscaped(b, v), true
	case int:
		return strconv.AppendInt(b, int64(v), 10), true
	case int64:
		return strconv.AppendInt(b, v, 10), true
	}
	return appendReflected(b, part)
}

func appendReflected(b []byte, part any) ([]byte, bool) {
	v := reflect.ValueOf(part)
	switch v.Kind() {
	case reflect.String:
		return keyspace.AppendEscaped(b, v.String()), true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10), true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return strconv.AppendUint(b, v.Uint(), 10), true
	}
	return b, false
}

func typeName(v any) string {
	if t := reflect.TypeOf(v); t != nil {
		return t.String()
	}
	return "nil"
}

// ParseKey parses the text of a key, as Key.String returns it. It is for tools that read keys in Redis. Code that has the parts uses Key. The
// text must be exactly as Policy.Key makes it: an escape too many or too few, or another category, is an *Error with CodeInvalidKey.
//
// Policies of one category share their keys, so any of them parses a text of the category. For Cache.Invalidate it does not matter which. To
// load by a key, parse it with the policy that made it.
func (p *Policy) ParseKey(text string) (Key, error) {
	if p == nil {
		return Key{}, p.Key().Err()
	}
	bad := func(message string) (Key, error) { return Key{}, &Error{Code: CodeInvalidKey, Message: message} }
	category, rest, found := strings.Cut(text, ":")
	if category != p.Category {
		return bad("not a key of category " + p.Category + ": it would begin with " + p.Category + ":")
	}
	var parts []any
	for more := found; more; {
		var part string
		part, rest, more = strings.Cut(rest, ":")
		unescaped, ok := keyspace.Unescape(part)
		if !ok {
			return bad("a percent sign in a key begins an escape, such as %3A for a colon: write a percent sign of the text itself as %25")
		}
		parts = append(parts, unescaped)
	}
	// Escaping the parts again must give the same text.
	key := p.Key(parts...)
	if key.String() != text {
		return bad("not as Policy.Key writes it: in a part, the bytes : * ? [ ] \\ { } %, control characters and bytes that are not UTF-8 are percent-escaped in upper case, and no others")
	}
	return key, nil
}

// HashID returns 16 characters that replace a user's id in keys: 96 bits of HMAC-SHA-256 with Options.Secret, in URL-safe base64. The same id
// and secret give the same text in every process. Without a secret the text is a plain hash: somebody who can read the keys can find ids by
// hashing guesses. The first call then logs a warning. On a nil cache HashID works without a secret.
func (c *Cache) HashID(id string) string {
	var sum []byte
	if c == nil || c.opts.Secret.reveal == nil {
		if c != nil && c.opts.Logger != nil {
			c.warnSecret.Do(func() {
				c.opts.Logger.LogAttrs(context.Background(), slog.LevelWarn, "aside: HashID used without Options.Secret: guessable ids can be recovered from keys")
			})
		}
		plain := sha256.Sum256([]byte(id))
		sum = plain[:]
	} else {
		mac := hmac.New(sha256.New, []byte(c.opts.Secret.Reveal()))
		mac.Write([]byte(id))
		sum = mac.Sum(nil)
	}
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

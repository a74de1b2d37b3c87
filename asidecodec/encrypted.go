package asidecodec

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"

	"github.com/klauspost/compress/s2"

	"github.com/gatewayz/aside"
)

// A Key is a secret for Encrypted, with an id. Nothing prints the secret: not fmt, log/slog nor encoding/json.
type Key struct {
	id     string
	secret func() []byte // a function, so that no printer that reads unexported fields finds the bytes
}

// NewKey returns a key for AES-128, AES-192 or AES-256: the secret has 16, 24 or 32 random bytes. It is not a password. NewKey copies it.
// The id is stored in clear text with each value, and has 1 to 64 bytes. Encrypted checks both.
func NewKey(id string, secret []byte) Key {
	secret = bytes.Clone(secret)
	return Key{id, func() []byte { return secret }}
}

// ID returns the id.
func (k Key) ID() string { return k.id }

// String returns the id without the secret.
func (k Key) String() string { return fmt.Sprintf("key %q", k.id) }

// Format implements fmt.Formatter, so that no verb prints the secret.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue implements slog.LogValuer.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Encryption has the settings of an encrypting codec.
type Encryption struct {
	// Keys has at least one key. The first one encrypts, and each of them decrypts.
	Keys []Key

	// Context is bound to each value: a value that was encrypted with another Context is not decoded. Give each policy its own, such as
	// its Name: then a value cannot be moved to another policy in Redis. It is not secret and not stored. At most 1,024 bytes.
	Context string

	// Compress compresses values with S2 before it encrypts them: the cache cannot compress encrypted bytes. The size of a stored value then
	// depends on its content. Somebody who can choose a part of a value and see sizes can learn other parts: leave Compress off for
	// such values.
	Compress bool

	// MaxBytes bounds what the inner codec encodes, before it is compressed. Values of more bytes are neither stored nor decoded. Default: 64 MiB, at
	// most 1 GiB.
	MaxBytes int
}

// Encrypted returns a codec that encrypts what inner encodes by AES-GCM, and authenticates it. The first key encrypts, and each key decrypts. The settings
// other than the keys are those of a zero Encryption.
//
// Make the codec once: a policy with another Encrypted is another policy. Options.JSON does not apply to an inner codec. docs/codecs.md says how
// to replace a key, how many values a key is for, and what is not encrypted.
func Encrypted(inner aside.Codec, keys ...Key) (aside.Codec, error) {
	return Encryption{Keys: keys}.Codec(inner)
}

const (
	mostKeyID    = 64
	mostContext  = 1024
	mostByItself = 64 << 20 // the default of MaxBytes
	mostMaxBytes = 1 << 30  // S2 has a bound of its own above it

	layout     = 1 // the first byte of a stored value
	compressed = 1 // a bit of the second byte
)

// Codec returns the codec for these settings. Its Name is "encrypted:" and the Name of the inner codec. It does not accept values of other codecs: a cache
// that uses it never decodes a value that somebody has stored in clear text.
func (e Encryption) Codec(inner aside.Codec) (aside.Codec, error) {
	name := nameOf(inner)
	switch {
	case name == "":
		return nil, invalid("the inner codec is nil, or its Name is empty or panics: pass a codec such as aside.JSON")
	case len(e.Keys) == 0:
		return nil, invalid("Keys is empty: pass at least one key")
	case len(e.Context) > mostContext:
		return nil, invalid("Context has %d bytes: use at most %d", len(e.Context), mostContext)
	case e.MaxBytes < 0 || e.MaxBytes > mostMaxBytes:
		return nil, invalid("MaxBytes is %d: set 1 to %d bytes, or 0 for %d", e.MaxBytes, mostMaxBytes, mostByItself)
	}
	c := &encrypted{name: "encrypted:" + name, inner: inner, compress: e.Compress, most: e.MaxBytes, current: e.Keys[0].id, opens: map[string]func() cipher.AEAD{}}
	if c.most == 0 {
		c.most = mostByItself
	}
	c.bound = binary.AppendUvarint(nil, uint64(len(name)))
	c.bound = append(append(c.bound, name...), e.Context...)
	for i, k := range e.Keys {
		if err := k.check(e.Keys[:i]); err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(k.secret())
		if err != nil {
			return nil, invalid("%v: AES: %w", k, err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, invalid("%v: GCM: %w", k, err)
		}
		c.opens[k.id] = func() cipher.AEAD { return aead }
	}
	return c, nil
}

// check returns an error for a key that is not usable after the others.
func (k Key) check(others []Key) error {
	if k.secret == nil {
		return invalid("a key has no secret: make it with NewKey")
	}
	if k.id == "" || len(k.id) > mostKeyID {
		return invalid("the id of a key has %d bytes: use 1 to %d", len(k.id), mostKeyID)
	}
	secret := k.secret()
	switch len(secret) {
	case 16, 24, 32:
	default:
		return invalid("the secret of %v has %d bytes: use 16, 24 or 32 random bytes", k, len(secret))
	}
	if bytes.Count(secret, secret[:1]) == len(secret) {
		return invalid("all bytes of the secret of %v are the same: use random bytes", k)
	}
	for _, other := range others {
		if other.id == k.id {
			return invalid("two keys have the id %q: give each its own", k.id)
		}
		if subtle.ConstantTimeCompare(other.secret(), secret) == 1 {
			return invalid("%v and %v have the same secret: use another one for each", other, k)
		}
	}
	return nil
}

func invalid(format string, args ...any) error {
	err := fmt.Errorf("asidecodec.Encryption: "+format, args...)
	return &aside.Error{Code: aside.CodeInvalidOption, Message: err.Error()}
}

// nameOf is empty for nil, and for a codec whose Name panics.
func nameOf(c aside.Codec) (name string) {
	defer func() { _ = recover() }()
	if c == nil {
		return ""
	}
	return c.Name()
}

// An encrypted codec writes:
//
//	size    field
//	   1    layout
//	   1    flags: compressed
//	   1    length of the key's id
//	        the key's id
//	  12    nonce
//	        encrypted bytes
//	  16    tag
//
// The tag is over the fields before the nonce, the name of the inner codec and the Context too.
type encrypted struct {
	name     string
	inner    aside.Codec
	bound    []byte
	compress bool
	most     int
	current  string
	opens    map[string]func() cipher.AEAD // by functions, since printers that follow pointers, as those of tests do, would print the keys
}

func (c *encrypted) Name() string { return c.name }

// Exclusive makes the cache refuse values of other codecs: see aside.Codec.
func (*encrypted) Exclusive() bool { return true }

// String returns the name.
func (c *encrypted) String() string { return c.name }

// Format implements fmt.Formatter, so that no verb prints what the codec has of its keys.
func (c *encrypted) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.name) }

// LogValue implements slog.LogValuer.
func (c *encrypted) LogValue() slog.Value { return slog.StringValue(c.name) }

// authenticated is what the tag is over beside the encrypted bytes.
func (c *encrypted) authenticated(head []byte) []byte {
	return append(append(make([]byte, 0, len(head)+len(c.bound)), head...), c.bound...)
}

func (c *encrypted) Marshal(v any) ([]byte, error) {
	plain, err := c.inner.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(plain) > c.most {
		return nil, refusal(fmt.Sprintf("the value has %d bytes, over MaxBytes (%d) of its Encryption", len(plain), c.most))
	}
	flags := byte(0)
	if c.compress {
		if small := s2.Encode(nil, plain); len(small) < len(plain) {
			plain, flags = small, compressed
		}
	}
	aead := c.opens[c.current]()
	head := make([]byte, 0, 3+len(c.current)+aead.Overhead()+len(plain))
	head = append(head, layout, flags, byte(len(c.current)))
	head = append(head, c.current...)
	return aead.Seal(head, nil, plain, c.authenticated(head)), nil
}

func (c *encrypted) Unmarshal(data []byte, v any) error {
	if len(data) < 3 || data[0] != layout || len(data) < 3+int(data[2]) {
		return refusal("not written by this codec, or cut short")
	}
	head := data[:3+int(data[2])]
	id := string(head[3:])
	opens, ok := c.opens[id]
	if !ok {
		return refusal(fmt.Sprintf("encrypted with the key %q, which Encryption.Keys does not have", id))
	}
	plain, err := opens().Open(nil, nil, data[len(head):], c.authenticated(head))
	if err != nil {
		return refusal(fmt.Sprintf("not authentic: the value was changed, or encrypted with another secret of the id %q or another Context", id))
	}
	if head[1]&^compressed != 0 {
		return refusal("written by a later build")
	}
	if head[1]&compressed != 0 {
		if n, err := s2.DecodedLen(plain); err != nil || n > c.most {
			return refusal(fmt.Sprintf("the value has more bytes than MaxBytes (%d) of its Encryption, or is malformed", c.most))
		}
		if plain, err = s2.Decode(nil, plain); err != nil {
			return refusal("malformed S2")
		}
	}
	if len(plain) > c.most {
		return refusal(fmt.Sprintf("the value has %d bytes, over MaxBytes (%d) of its Encryption", len(plain), c.most))
	}
	return c.inner.Unmarshal(plain, v)
}

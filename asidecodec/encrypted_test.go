package asidecodec_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidecodec"
)

func ExampleEncrypted() {
	// Secrets come from a secret store, and never from the source.
	current := asidecodec.NewKey("2026-11", []byte("32 random bytes, from the store."))
	former := asidecodec.NewKey("2026-05", []byte("other random bytes, the old key."))
	codec, err := asidecodec.Encrypted(aside.JSON, current, former) // encrypts with current, and decrypts with both
	if err != nil {
		log.Fatal(err)
	}
	c, err := aside.New(aside.Options{}) // with Options.Redis, the codec encrypts what Redis stores
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	sessions := aside.Policy{Name: "sessions", Category: "sessions", TTL: time.Hour, Codec: codec}
	user, err := aside.GetOrLoad(context.Background(), c, sessions.Key("s1"), func(context.Context) (string, error) { return "alice", nil })
	fmt.Println(user, err, codec.Name(), current)
	// Output: alice <nil> encrypted:json key "2026-11"
}

func ExampleEncryption_Codec() {
	codec, err := asidecodec.Encryption{
		Keys:     []asidecodec.Key{asidecodec.NewKey("2026-11", []byte("32 random bytes, from the store."))},
		Context:  "profiles", // the values of other policies are not accepted
		Compress: true,       // before it encrypts
	}.Codec(aside.CBOR)
	if err != nil {
		log.Fatal(err)
	}
	profile := strings.Repeat("a long text ", 1000)
	data, err := codec.Marshal(&profile)
	fmt.Println(len(profile), "bytes,", len(data) < 1000, err)
	// Output: 12000 bytes, true <nil>
}

const canary = "canary, canary, canary, canary 7"

func key(id string) asidecodec.Key {
	return asidecodec.NewKey(id, []byte(fmt.Sprintf("%-32s", "secret of "+id)))
}

func encrypting(t testing.TB, inner aside.Codec, keys ...asidecodec.Key) aside.Codec {
	t.Helper()
	c, err := asidecodec.Encrypted(inner, keys...)
	require.NoError(t, err)
	return c
}

func TestEncryptedKeepsWhatItsInnerCodecKeeps(t *testing.T) {
	t.Parallel()
	type profile struct {
		Name string
		Tags []string
	}
	p := profile{"alice", []string{"a", "b"}}
	for _, inner := range []aside.Codec{aside.JSON, aside.CBOR} {
		c := encrypting(t, inner, key("a"))
		require.Equal(t, "encrypted:"+inner.Name(), c.Name())
		require.Equal(t, p, reread(t, c, p))
		_, err := c.Marshal(new(chan int))
		require.EqualError(t, err, func() string { _, err := inner.Marshal(new(chan int)); return err.Error() }(), "the inner codec's own error")
	}
	raw := encrypting(t, aside.Raw, key("a"))
	for _, b := range [][]byte{nil, {}, {0, 0xff}, bytes.Repeat([]byte("long"), 1<<19)} {
		require.Equal(t, b, reread(t, raw, b))
	}
	at := timestamppb.New(time.Unix(1, 2))
	require.True(t, proto.Equal(at, reread(t, encrypting(t, asidecodec.Protobuf(), key("a")), at)))
	twice := encrypting(t, raw, key("b"))
	require.Equal(t, "encrypted:encrypted:raw", twice.Name())
	require.Equal(t, "text", reread(t, twice, "text"))
}

func TestEncryptedStoresNoClearText(t *testing.T) {
	t.Parallel()
	text := "a text to look for, a text to look for, a text to look for"
	for _, compress := range []bool{false, true} {
		c, err := asidecodec.Encryption{Keys: []asidecodec.Key{key("a")}, Compress: compress}.Codec(aside.Raw)
		require.NoError(t, err)
		one, err := c.Marshal(&text)
		require.NoError(t, err)
		two, err := c.Marshal(&text)
		require.NoError(t, err)
		require.NotContains(t, string(one), "text")
		require.NotEqual(t, one, two, "each value has a nonce of its own")
		require.Equal(t, compress, len(one) < len(text), "%d bytes", len(one))
		require.Equal(t, "a text to look for, a text to look for, a text to look for", text, "the inner codec's bytes are those of the value")
		var got string
		require.NoError(t, encrypting(t, aside.Raw, key("a")).Unmarshal(one, &got), "a reader needs no option")
		require.Equal(t, text, got)
	}
}

func TestEncryptedRotatesKeys(t *testing.T) {
	t.Parallel()
	text := "text"
	before, both, after := encrypting(t, aside.Raw, key("old")), encrypting(t, aside.Raw, key("new"), key("old")), encrypting(t, aside.Raw, key("new"))
	read := func(by aside.Codec, data []byte) error {
		var got string
		err := by.Unmarshal(data, &got)
		if err == nil {
			require.Equal(t, text, got)
		}
		return err
	}
	stored, err := before.Marshal(&text)
	require.NoError(t, err)
	require.NoError(t, read(both, stored))
	require.EqualError(t, read(after, stored), `asidecodec: encrypted with the key "old", which Encryption.Keys does not have`)
	stored, err = both.Marshal(&text)
	require.NoError(t, err)
	require.NoError(t, read(after, stored), "the first key encrypts")
	require.ErrorContains(t, read(before, stored), `the key "new"`)
}

func TestEncryptedRefusesWhatWasChanged(t *testing.T) {
	t.Parallel()
	text := "a text that is long enough to be compressed, a text that is long enough to be compressed"
	c, err := asidecodec.Encryption{Keys: []asidecodec.Key{key("a"), key("b")}, Context: "one", Compress: true}.Codec(aside.Raw)
	require.NoError(t, err)
	data, err := c.Marshal(&text)
	require.NoError(t, err)
	refused := func(by aside.Codec, data []byte) string {
		t.Helper()
		var got string
		err := by.Unmarshal(data, &got)
		require.Error(t, err)
		require.Empty(t, got)
		require.NotContains(t, err.Error(), "long enough")
		return err.Error()
	}
	for i := range data {
		for _, bit := range []byte{1, 2, 128} {
			other := bytes.Clone(data)
			other[i] ^= bit
			refused(c, other)
		}
	}
	for n := range data {
		refused(c, data[:n])
	}
	refused(c, append(bytes.Clone(data), 0))
	other := bytes.Clone(data)
	other[3] = 'b'
	require.Contains(t, refused(c, other), `not authentic`, "the id of another key")
	for _, e := range []asidecodec.Encryption{
		{Context: "two", Keys: []asidecodec.Key{key("a")}},
		{Context: "one", Keys: []asidecodec.Key{asidecodec.NewKey("a", []byte("another secret for the same id.."))}},
	} {
		by, err := e.Codec(aside.Raw)
		require.NoError(t, err)
		require.Contains(t, refused(by, data), "another secret of the id \"a\" or another Context")
	}
	by, err := asidecodec.Encryption{Context: "one", Keys: []asidecodec.Key{key("a")}}.Codec(named{aside.Raw, "others"})
	require.NoError(t, err)
	require.Contains(t, refused(by, data), "not authentic", "another inner codec")
}

// named is a codec under another name.
type named struct {
	aside.Codec
	name string
}

func (n named) Name() string { return n.name }

func TestEncryptedBoundsTheInnerValue(t *testing.T) {
	t.Parallel()
	roomy, err := asidecodec.Encryption{Keys: []asidecodec.Key{key("a")}, Compress: true}.Codec(aside.Raw)
	require.NoError(t, err)
	plain := encrypting(t, aside.Raw, key("a"))
	tight, err := asidecodec.Encryption{Keys: []asidecodec.Key{key("a")}, Compress: true, MaxBytes: 1000}.Codec(aside.Raw)
	require.NoError(t, err)
	text := strings.Repeat("a", 1000)
	require.Equal(t, text, reread(t, tight, text))
	text += "a"
	_, err = tight.Marshal(&text)
	require.ErrorContains(t, err, "the value has 1001 bytes, over MaxBytes (1000)")
	for _, by := range []aside.Codec{roomy, plain} {
		data, err := by.Marshal(&text)
		require.NoError(t, err)
		var got string
		require.ErrorContains(t, tight.Unmarshal(data, &got), "MaxBytes (1000)")
		require.Empty(t, got)
	}
	huge := make([]byte, 64<<20+1)
	_, err = roomy.Marshal(&huge)
	require.ErrorContains(t, err, "over MaxBytes (67108864)", "the default")
}

func TestEncryptedRefusesItsSettings(t *testing.T) {
	t.Parallel()
	one := []asidecodec.Key{key("a")}
	keys := func(keys ...asidecodec.Key) asidecodec.Encryption { return asidecodec.Encryption{Keys: keys} }
	for want, e := range map[string]asidecodec.Encryption{
		"Keys is empty":                    {},
		"the id of a key has 0 bytes":      keys(key("")),
		"the id of a key has 65 bytes":     keys(key(strings.Repeat("a", 65))),
		"a key has no secret":              keys(asidecodec.Key{}),
		`key "a" has 31 bytes`:             keys(asidecodec.NewKey("a", make([]byte, 31))),
		`key "a" has 0 bytes`:              keys(asidecodec.NewKey("a", nil)),
		"all bytes of the secret of":       keys(asidecodec.NewKey("a", make([]byte, 32))),
		`two keys have the id "a"`:         keys(key("a"), key("b"), key("a")),
		`"a" and key "b" have the same`:    keys(asidecodec.NewKey("a", []byte(canary)), asidecodec.NewKey("b", []byte(canary))),
		"Context has 1025 bytes":           {Keys: one, Context: strings.Repeat("a", 1025)},
		"MaxBytes is -1":                   {Keys: one, MaxBytes: -1},
		"MaxBytes is 1073741825: set 1 to": {Keys: one, MaxBytes: 1<<30 + 1},
	} {
		c, err := e.Codec(aside.JSON)
		require.ErrorContains(t, err, want)
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidOption})
		require.NotContains(t, err.Error(), canary)
		require.Nil(t, c)
	}
	for _, inner := range []aside.Codec{nil, named{aside.JSON, ""}, (*named)(nil)} {
		_, err := asidecodec.Encrypted(inner, one...)
		require.ErrorContains(t, err, "the inner codec is nil")
	}
	for _, n := range []int{16, 24, 32} {
		c := encrypting(t, aside.Raw, asidecodec.NewKey(strings.Repeat("a", 64), []byte(canary)[:n]))
		require.Equal(t, "text", reread(t, c, "text"))
	}
}

func TestNewKeyCopiesTheSecret(t *testing.T) {
	t.Parallel()
	secret := []byte(canary)
	k := asidecodec.NewKey("a", secret)
	require.Equal(t, "a", k.ID())
	text, before := "text", encrypting(t, aside.Raw, k)
	data, err := before.Marshal(&text)
	require.NoError(t, err)
	clear(secret)
	var got string
	require.NoError(t, encrypting(t, aside.Raw, k).Unmarshal(data, &got))
	require.Equal(t, text, got)
}

func TestKeysAreNotPrinted(t *testing.T) {
	t.Parallel()
	k := asidecodec.NewKey("an id", []byte(canary))
	c := encrypting(t, aside.JSON, k)
	type config struct {
		Key    asidecodec.Key
		hidden asidecodec.Key
		codec  aside.Codec
	}
	var out bytes.Buffer
	for _, v := range []any{k, &k, c, config{k, k, c}, &config{k, k, c}, asidecodec.Encryption{Keys: []asidecodec.Key{k}}, aside.Policy{Codec: c}, []asidecodec.Key{k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("line", "value", v)
		}
		data, err := json.Marshal(v)
		fmt.Fprintf(&out, "%s %v\n", data, err)
	}
	require.Contains(t, out.String(), `key "an id"`)
	require.Contains(t, out.String(), "encrypted:json")
	for _, form := range []string{"canary", hex.EncodeToString([]byte("canary")), strings.ToUpper(hex.EncodeToString([]byte("canary"))), "99 97 110 97", "0x63, 0x61", "Y2FuYXJ5"} {
		require.NotContains(t, out.String(), form)
	}
}

// What the codec says of a fault reaches the log: it quotes no value.
func TestRefusalsAreHarmless(t *testing.T) {
	t.Parallel()
	var got string
	err := encrypting(t, aside.Raw, key("a")).Unmarshal([]byte("text"), &got)
	var harmless interface{ NoValue() }
	require.True(t, errors.As(err, &harmless))
	harmless.NoValue()
}

func FuzzEncryptedUnmarshal(f *testing.F) {
	c := encrypting(f, aside.Raw, key("a"), key("b"))
	compressing, err := asidecodec.Encryption{Keys: []asidecodec.Key{key("b")}, Compress: true}.Codec(aside.Raw)
	require.NoError(f, err)
	genuine := map[string]bool{}
	for _, by := range []aside.Codec{c, compressing} {
		for _, text := range []string{"", "text", strings.Repeat("a", 100)} {
			data, err := by.Marshal(&text)
			require.NoError(f, err)
			genuine[text] = true // the data of another fuzzing process has other nonces
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got string
		before := string(data)
		err := c.Unmarshal(data, &got)
		require.Equal(t, before, string(data), "the data is not changed")
		if err != nil {
			require.Empty(t, got)
			return
		}
		require.True(t, genuine[got], "a value that was never encrypted: %q", got)
	})
}

// A failed comparison of testify prints what it compares, through pointers. It prints no key.
func TestAFailedComparisonShowsNoKey(t *testing.T) {
	t.Parallel()
	one, err := asidecodec.Encrypted(aside.JSON, asidecodec.NewKey("k", []byte("0123456789abcdef0123456789abcdef")))
	require.NoError(t, err)
	other, err := asidecodec.Encrypted(aside.CBOR, asidecodec.NewKey("k", []byte("fedcba9876543210fedcba9876543210")))
	require.NoError(t, err)
	var failure printed
	require.False(t, assert.Equal(&failure, one, other))
	require.Contains(t, string(failure), "encrypted:json")
	require.NotContains(t, string(failure), "uint32", "the words of a key")
}

// printed is what a test prints.
type printed string

func (p *printed) Errorf(format string, args ...any) { *p += printed(fmt.Sprintf(format, args...)) }

package aside_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/walk"
)

// canary is what no text of the library may hold.
const canary = "cAnArY7f3a9d0e1b"

// canaryIn looks for it in every form that a printer could give it.
func canaryIn(text string) (form string, found bool) {
	for form, sign := range canaryForms {
		if strings.Contains(text, sign) {
			return form, true
		}
	}
	return "", false
}

var canaryForms = func() map[string]string {
	numbers := strings.Trim(fmt.Sprint([]byte(canary)), "[]")
	return map[string]string{
		"text": canary, "base64": base64.RawStdEncoding.EncodeToString([]byte(canary)), "hex": hex.EncodeToString([]byte(canary)),
		"HEX": strings.ToUpper(hex.EncodeToString([]byte(canary))), "numbers": numbers, "Go": strings.Trim(fmt.Sprintf("%#v", []byte(canary)), "[]byte{}"),
		"numbers in JSON": strings.ReplaceAll(numbers, " ", ","),
	}
}()

func requireNoCanary(t *testing.T, text, where string) {
	t.Helper()
	form, found := canaryIn(text)
	require.False(t, found, "%s holds the canary as %s: %s", where, form, text)
}

// The proof that canaries would be seen, in whatever form, by what looks for them after every test that makes a cache.
func TestACanaryIsSeenInEachForm(t *testing.T) {
	t.Parallel()
	type bare aside.Options // of the same fields, without the methods
	for _, text := range []string{
		"a line with " + canary + ".", fmt.Sprintf("%+v", bare(secretive("h:1"))), fmt.Sprintf("%v", []byte(canary)),
		fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprintf("%#v", []byte(canary)), base64.StdEncoding.EncodeToString([]byte(canary)),
	} {
		_, found := canaryIn(text)
		require.True(t, found, text)
	}
	var log logbook
	slog.New(slog.NewTextHandler(&log, nil)).Info("careless", "options", bare(secretive("h:1")))
	_, found := canaryIn(log.String())
	require.True(t, found, log.String())
	_, found = canaryIn("a line without")
	require.False(t, found)
}

var verbs = []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%10.3v"}

// printed is v in every way that a program logs things.
func printed(t *testing.T, v any) string {
	t.Helper()
	var all strings.Builder
	for _, verb := range verbs {
		fmt.Fprintf(&all, verb+"\n", v)
	}
	fmt.Fprintln(&all, v)
	options := &slog.HandlerOptions{Level: slog.LevelDebug}
	for _, h := range []slog.Handler{slog.NewJSONHandler(&all, options), slog.NewTextHandler(&all, options)} {
		l := slog.New(h)
		l.Info("message", "value", v, slog.Group("in", "value", v))
		l.With("value", v).Info("message")
	}
	text, err := json.Marshal(v)
	fmt.Fprintf(&all, "%s %v\n", text, err)
	return all.String()
}

func secretive(addr string) aside.Options {
	return aside.Options{
		Redis: rueidis.ClientOption{
			InitAddress: []string{addr}, ForceSingleClient: true, Username: canary, Password: canary, SelectDB: 3,
			Sentinel: rueidis.SentinelOption{Username: canary, Password: canary},
		},
		Secret: aside.NewSecret(canary),
	}
}

func TestOptionsPrintNoSecret(t *testing.T) {
	t.Parallel()
	o := secretive("redis.internal:6379")
	// The proof that this test would see one: a type of the same fields, without the methods.
	type bare aside.Options
	require.Contains(t, fmt.Sprintf("%+v", bare(o)), canary)
	for name, v := range map[string]any{
		"Options": o, "*Options": &o, "a slice": []aside.Options{o}, "a field": struct{ Cache aside.Options }{o},
		"a map": map[string]aside.Options{"x": o}, "an error": fmt.Errorf("bad: %v", o),
	} {
		if name == "Options" || name == "*Options" {
			require.Contains(t, fmt.Sprint(v), "redis.internal:6379 db 3", "an operator may know where")
			require.NotContains(t, printed(t, v), "!ERROR", "slog can print it")
		}
		requireNoCanary(t, printed(t, v), name)
	}
	o.Redis.InitAddress = []string{"redis://u:" + canary + "@redis.internal:6379", canary + "@h:1"} // New refuses it
	requireNoCanary(t, printed(t, o), "Options with URLs for addresses")
}

// exercise makes a cache do all that it does, fail where it can, and returns what it says.
func exercise(t *testing.T, c *aside.Cache) (said []any) {
	ctx := t.Context()
	id := c.HashID(canary) // an API key that identifies a user
	p := aside.Policy{Name: "private", Category: "private", TTL: time.Hour, LoadTimeout: time.Second}
	key := p.Key(id, "profile")
	say := func(v ...any) { said = append(said, v...) }
	say(id, key, key.String(), c.Health(), c)
	say(aside.Lookup(ctx, c, key, func(context.Context) (string, error) { return canary + " is the value", nil }))
	said = said[:len(said)-2] // the value is the caller's own
	for _, err := range []error{
		func() error { _, err := aside.Get[string](ctx, c, key); return err }(),
		aside.Set(ctx, c, key, canary),
		aside.Set(ctx, c, key, map[string]any{canary: func() {}}), // what no codec can encode
		aside.Set(ctx, c, p.Key(id, canary == ""), "v"),
		aside.Set(ctx, c, p.Key([]byte(canary)), "v"),
		func() error {
			_, err := aside.GetOrLoad(ctx, c, key, func(context.Context) (string, error) { return "", errLoader }, aside.Refresh())
			return err
		}(),
		func() error {
			_, err := aside.GetOrLoad(ctx, c, key, func(context.Context) (chan string, error) { return make(chan string), nil })
			return err
		}(),
		func() error {
			_, err := aside.GetOrLoad(ctx, c, key, func(context.Context) (any, error) { explode(); return nil, nil })
			return err
		}(),
		func() error {
			_, err := aside.GetOrLoadMany(ctx, c, []string{canary}, func(id string) aside.Key { return p.Key(c.HashID(id), 1.5) },
				func(context.Context, []string) (map[string]string, error) { return nil, nil })
			return err
		}(),
	} {
		say(err)
	}
	say(c.Invalidate(ctx, key))
	say(c.Metrics(), c.Health())
	return said
}

func requireSilence(t *testing.T, o aside.Options, ready func(*aside.Cache) bool) {
	for name, handler := range map[string]func(*logbook) slog.Handler{
		"json": func(l *logbook) slog.Handler {
			return slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
		"text": func(l *logbook) slog.Handler {
			return slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
	} {
		var log logbook
		o.Logger = slog.New(handler(&log))
		c := newCache(t, o)
		eventually(t, "the cache is ready for it", func() bool { return ready(c) })
		said := exercise(t, c)
		for _, v := range said {
			requireNoCanary(t, printed(t, v), fmt.Sprintf("%T", v))
		}
		requireNoCanary(t, printed(t, struct{ C *aside.Cache }{c}), "a struct with a cache")
		require.NoError(t, c.Close())
		if len(o.Redis.InitAddress) > 0 {
			require.NotEmpty(t, log.String(), "the log was looked at")
		}
		requireNoCanary(t, log.String(), name+" log")
	}
}

func TestNothingSaysASecretWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	requireSilence(t, secretive(nobody(t)), func(c *aside.Cache) bool { return c.Health().Reason == connectionRefused })
}

func TestNothingSaysASecretInMemory(t *testing.T) {
	t.Parallel()
	requireSilence(t, aside.Options{Secret: aside.NewSecret(canary)}, func(*aside.Cache) bool { return true })
}

// A server's own errors may quote what was sent to it: whole, in part, and in other forms.
func TestNothingSaysASecretThatTheServerQuotes(t *testing.T) {
	t.Parallel()
	const unknown = "redis answered ERR: the log has its words"
	for answer, reason := range map[string]string{
		"WRONGPASS invalid pair " + canary + " " + canary:                                                "redis answered WRONGPASS",
		"ERR " + canary + " as " + strings.ToUpper(hex.EncodeToString([]byte(canary))) + " is not known": unknown,
		"ERR unknown what '" + canary + "', with args beginning with: '" + canary[:3] + "'":              unknown,
		"no user " + canary[:8]: unknown,
	} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			addr := answeringWith(t, "-"+answer)
			requireSilence(t, secretive(addr), func(c *aside.Cache) bool { return strings.HasPrefix(c.Health().Reason, reason) })
		})
	}
}

func TestErrorsOfWrongOptionsSayNoSecret(t *testing.T) {
	t.Parallel()
	o := secretive("redis://u:" + canary + "@h:6379")
	o.Redis.ReplicaOnly, o.Redis.SelectDB, o.Secret = true, -1, aside.NewSecret(canary[:15])
	_, err := aside.New(o)
	require.Error(t, err)
	for _, field := range []string{"InitAddress", "ReplicaOnly", "SelectDB", "Secret"} {
		require.ErrorContains(t, err, field)
	}
	requireNoCanary(t, printed(t, err), "the error")
	require.NotContains(t, err.Error(), canary[:15])
	var one *aside.Error
	require.True(t, errors.As(err, &one))
	requireNoCanary(t, printed(t, *one), "one of its errors")
}

// keptBy is a configuration as a program may have it: fmt asks nothing in an unexported field how it wants to be printed.
type keptBy[T any] struct {
	Public  T
	private T
	pointer *T
	list    []T
	table   map[string]T
	any     any
	nested  struct{ inner struct{ value T } }
}

func keeping[T any](v T) keptBy[T] {
	h := keptBy[T]{Public: v, private: v, pointer: &v, list: []T{v}, table: map[string]T{"x": v}, any: v}
	h.nested.inner.value = v
	return h
}

// requireHidden goes through a value as everything does that prints or encodes values.
func requireHidden[T any](t *testing.T, v T, where string) {
	t.Helper()
	h := keeping(v)
	for _, v := range []any{v, &v, h, &h, []any{h}, map[string]any{"x": &h}} {
		requireNoCanary(t, printed(t, v), fmt.Sprintf("%s as %T", where, v))
		walk.Texts(v, func(path string, text []byte) { requireNoCanary(t, string(text), where+" at "+path) })
		var encoded bytes.Buffer
		_ = gob.NewEncoder(&encoded).Encode(v)
		_ = xml.NewEncoder(&encoded).Encode(v)
		requireNoCanary(t, encoded.String(), where+", encoded")
	}
}

func TestReflectionFindsNoSecretInOptions(t *testing.T) {
	t.Parallel()
	secret := aside.NewSecret(canary)
	require.Equal(t, canary, secret.Reveal())
	requireHidden(t, secret, "a Secret")
	requireHidden(t, aside.NewSecret([]byte(canary)), "a Secret of bytes")
	requireHidden(t, aside.Options{
		Redis:  rueidis.ClientOption{InitAddress: []string{"h:1"}, AuthCredentialsFn: aside.Credentials("u", secret)},
		Secret: secret,
	}, "Options")
	require.Equal(t, "[secret]", fmt.Sprint(secret))
	require.Equal(t, aside.Secret{}, aside.NewSecret(""))
	require.Empty(t, aside.Secret{}.Reveal()+fmt.Sprint(aside.Secret{}))
	// The proof that this test would see one.
	walked := false
	walk.Texts(keeping(secretive("h:1")), func(_ string, text []byte) { walked = walked || string(text) == canary })
	require.True(t, walked)
}

func TestReflectionFindsNoSecretOfTheEnvironment(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"parts": {"REDIS_USERNAME": canary, "REDIS_PASSWORD": canary}, "a URL": {"REDIS_URL": "rediss://u:" + canary + "@h:1"},
		"a socket": {"REDIS_URL": "unix://u:" + canary + "@/run/redis.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t, env)
			o, err := aside.OptionsFromEnv()
			require.NoError(t, err)
			requireHidden(t, o, name)
		})
	}
}

// What OptionsFromEnv hides reaches a server that asks for it; Sentinels have a password of their own, or none, and are not sent that of
// the primary.
func TestCredentialsOfTheEnvironmentAreUsed(t *testing.T) {
	server := redistest.Start(t, "--requirepass", canary)
	environment(t, map[string]string{"REDIS_URL": "redis://:" + canary + "@" + server.Addr()})
	o, err := aside.OptionsFromEnv()
	require.NoError(t, err)
	c := newCache(t, o)
	eventually(t, "connected", func() bool { return c.Health().State == aside.StateConnected })
	environment(t, map[string]string{"REDIS_URL": "redis://:p@h:1?master_set=m"})
	o, err = aside.OptionsFromEnv()
	require.NoError(t, err)
	require.Nil(t, o.Redis.AuthCredentialsFn)
	require.Equal(t, "p", o.Redis.Password)
}

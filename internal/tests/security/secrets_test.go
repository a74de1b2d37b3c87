package security_test

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
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/walk"
)

// The proof that canaries would be seen, in whatever form, by what looks for them after every test that makes a cache.
func TestACanaryIsSeenInEachForm(t *testing.T) {
	t.Parallel()
	type bare aside.Options // of the same fields, without the methods
	for _, text := range []string{
		"a line with " + asidetest.Canary + ".", fmt.Sprintf("%+v", bare(asidetest.Secretive("h:1"))), fmt.Sprintf("%v", []byte(asidetest.Canary)),
		fmt.Sprintf("%x", asidetest.Canary), fmt.Sprintf("%X", asidetest.Canary), fmt.Sprintf("%#v", []byte(asidetest.Canary)), base64.StdEncoding.EncodeToString([]byte(asidetest.Canary)),
	} {
		_, found := asidetest.CanaryIn(text)
		require.True(t, found, text)
	}
	var log asidetest.Logbook
	slog.New(slog.NewTextHandler(&log, nil)).Info("careless", "options", bare(asidetest.Secretive("h:1")))
	_, found := asidetest.CanaryIn(log.String())
	require.True(t, found, log.String())
	_, found = asidetest.CanaryIn("a line without")
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

func TestOptionsPrintNoSecret(t *testing.T) {
	t.Parallel()
	o := asidetest.Secretive("redis.internal:6379")
	// The proof that this test would see one: a type of the same fields, without the methods.
	type bare aside.Options
	require.Contains(t, fmt.Sprintf("%+v", bare(o)), asidetest.Canary)
	for name, v := range map[string]any{
		"Options": o, "*Options": &o, "a slice": []aside.Options{o}, "a field": struct{ Cache aside.Options }{o},
		"a map": map[string]aside.Options{"x": o}, "an error": fmt.Errorf("bad: %v", o),
	} {
		if name == "Options" || name == "*Options" {
			require.Contains(t, fmt.Sprint(v), "redis.internal:6379 db 3", "an operator may know where")
			require.NotContains(t, printed(t, v), "!ERROR", "slog can print it")
		}
		asidetest.RequireNoCanary(t, printed(t, v), name)
	}
	o.Redis.InitAddress = []string{"redis://u:" + asidetest.Canary + "@redis.internal:6379", asidetest.Canary + "@h:1"} // New refuses it
	asidetest.RequireNoCanary(t, printed(t, o), "Options with URLs for addresses")
}

// exercise makes a cache do all that it does, fail where it can, and returns what it says.
func exercise(t *testing.T, c *aside.Cache) (said []any) {
	ctx := t.Context()
	id := c.HashID(asidetest.Canary) // an API key that identifies a user
	p := aside.Policy{Name: "private", Category: "private", TTL: time.Hour, LoadTimeout: time.Second}
	key := p.Key(id, "profile")
	say := func(v ...any) { said = append(said, v...) }
	say(id, key, key.String(), c.Health(), c)
	say(aside.Lookup(ctx, c, key, func(context.Context) (string, error) { return asidetest.Canary + " is the value", nil }))
	said = said[:len(said)-2] // the value is the caller's own
	for _, err := range []error{
		func() error { _, err := aside.Get[string](ctx, c, key); return err }(),
		aside.Set(ctx, c, key, asidetest.Canary),
		aside.Set(ctx, c, key, map[string]any{asidetest.Canary: func() {}}), // what no codec can encode
		aside.Set(ctx, c, p.Key(id, asidetest.Canary == ""), "v"),
		aside.Set(ctx, c, p.Key([]byte(asidetest.Canary)), "v"),
		func() error {
			_, err := aside.GetOrLoad(ctx, c, key, func(context.Context) (string, error) { return "", asidetest.ErrLoader }, aside.Refresh())
			return err
		}(),
		func() error {
			_, err := aside.GetOrLoad(ctx, c, key, func(context.Context) (chan string, error) { return make(chan string), nil })
			return err
		}(),
		func() error {
			_, err := aside.GetOrLoad(ctx, c, key, func(context.Context) (any, error) { asidetest.Explode(); return nil, nil })
			return err
		}(),
		func() error {
			_, err := aside.GetOrLoadMany(ctx, c, []string{asidetest.Canary}, func(id string) aside.Key { return p.Key(c.HashID(id), 1.5) },
				func(context.Context, []string) (map[string]string, error) { return nil, nil })
			return err
		}(),
	} {
		say(err)
	}
	say(c.Invalidate(ctx, key))
	say(c.InvalidateTags(ctx, "of "+id))
	say(c.Metrics(), c.Health())
	if c.Health().State == aside.StateDegraded {
		asidetest.Eventually(t, "the change of state is entered, soon after Health has it", func() bool { return len(c.Recent().States) > 0 })
	}
	events := c.Recent()
	require.Len(t, events.Invalidations, 2)
	require.NotEmpty(t, events.FailedLoads, "there is something to look at")
	say(events, c.Nodes())
	return said
}

func requireSilence(t *testing.T, o aside.Options, ready func(*aside.Cache) bool) {
	for name, handler := range map[string]func(*asidetest.Logbook) slog.Handler{
		"json": func(l *asidetest.Logbook) slog.Handler {
			return slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
		"text": func(l *asidetest.Logbook) slog.Handler {
			return slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
	} {
		var log asidetest.Logbook
		o.Logger = slog.New(handler(&log))
		c := asidetest.NewCache(t, o)
		asidetest.Eventually(t, "the cache is ready for it", func() bool { return ready(c) })
		said := exercise(t, c)
		for _, v := range said {
			asidetest.RequireNoCanary(t, printed(t, v), fmt.Sprintf("%T", v))
		}
		asidetest.RequireNoCanary(t, printed(t, struct{ C *aside.Cache }{c}), "a struct with a cache")
		require.NoError(t, c.Close())
		if len(o.Redis.InitAddress) > 0 {
			asidetest.Eventually(t, "the log has something to look at", func() bool { return log.String() != "" })
		}
		asidetest.RequireNoCanary(t, log.String(), name+" log")
	}
}

func TestNothingSaysASecretWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	requireSilence(t, asidetest.Secretive(asidetest.Nobody(t)), func(c *aside.Cache) bool { return c.Health().Reason == asidetest.ConnectionRefused })
}

func TestNothingSaysASecretInMemory(t *testing.T) {
	t.Parallel()
	requireSilence(t, aside.Options{Secret: aside.NewSecret(asidetest.Canary)}, func(*aside.Cache) bool { return true })
}

// A server's own errors may quote what was sent to it: whole, in part, and in other forms.
func TestNothingSaysASecretThatTheServerQuotes(t *testing.T) {
	t.Parallel()
	const unknown = "redis answered ERR: the log has its words"
	for answer, reason := range map[string]string{
		"WRONGPASS invalid pair " + asidetest.Canary + " " + asidetest.Canary:                                                "redis answered WRONGPASS",
		"ERR " + asidetest.Canary + " as " + strings.ToUpper(hex.EncodeToString([]byte(asidetest.Canary))) + " is not known": unknown,
		"ERR unknown what '" + asidetest.Canary + "', with args beginning with: '" + asidetest.Canary[:3] + "'":              unknown,
		"no user " + asidetest.Canary[:8]: unknown,
	} {
		t.Run(strings.ReplaceAll(answer, asidetest.Canary, "SECRET"), func(t *testing.T) {
			t.Parallel()
			addr := asidetest.AnsweringWith(t, "-"+answer)
			requireSilence(t, asidetest.Secretive(addr), func(c *aside.Cache) bool { return strings.HasPrefix(c.Health().Reason, reason) })
		})
	}
}

func TestErrorsOfWrongOptionsSayNoSecret(t *testing.T) {
	t.Parallel()
	o := asidetest.Secretive("redis://u:" + asidetest.Canary + "@h:6379")
	o.Redis.ReplicaOnly, o.Redis.SelectDB, o.Secret = true, -1, aside.NewSecret(asidetest.Canary[:15])
	_, err := aside.New(o)
	require.Error(t, err)
	for _, field := range []string{"InitAddress", "ReplicaOnly", "SelectDB", "Secret"} {
		require.ErrorContains(t, err, field)
	}
	asidetest.RequireNoCanary(t, printed(t, err), "the error")
	require.NotContains(t, err.Error(), asidetest.Canary[:15])
	var one *aside.Error
	require.True(t, errors.As(err, &one))
	asidetest.RequireNoCanary(t, printed(t, *one), "one of its errors")
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
		asidetest.RequireNoCanary(t, printed(t, v), fmt.Sprintf("%s as %T", where, v))
		walk.Texts(v, func(path string, text []byte) { asidetest.RequireNoCanary(t, string(text), where+" at "+path) })
		var encoded bytes.Buffer
		_ = gob.NewEncoder(&encoded).Encode(v)
		_ = xml.NewEncoder(&encoded).Encode(v)
		asidetest.RequireNoCanary(t, encoded.String(), where+", encoded")
	}
}

func TestReflectionFindsNoSecretInOptions(t *testing.T) {
	t.Parallel()
	secret := aside.NewSecret(asidetest.Canary)
	require.Equal(t, asidetest.Canary, secret.Reveal())
	requireHidden(t, secret, "a Secret")
	requireHidden(t, aside.NewSecret([]byte(asidetest.Canary)), "a Secret of bytes")
	requireHidden(t, aside.Options{
		Redis:  rueidis.ClientOption{InitAddress: []string{"h:1"}, AuthCredentialsFn: aside.Credentials("u", secret)},
		Secret: secret,
	}, "Options")
	require.Equal(t, "[secret]", fmt.Sprint(secret))
	require.Equal(t, aside.Secret{}, aside.NewSecret(""))
	require.Empty(t, aside.Secret{}.Reveal()+fmt.Sprint(aside.Secret{}))
	// The proof that this test would see one.
	walked := false
	walk.Texts(keeping(asidetest.Secretive("h:1")), func(_ string, text []byte) { walked = walked || string(text) == asidetest.Canary })
	require.True(t, walked)
}

func TestReflectionFindsNoSecretOfTheEnvironment(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"parts": {"REDIS_USERNAME": asidetest.Canary, "REDIS_PASSWORD": asidetest.Canary}, "a URL": {"REDIS_URL": "rediss://u:" + asidetest.Canary + "@h:1"},
		"a socket": {"REDIS_URL": "unix://u:" + asidetest.Canary + "@/run/redis.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			asidetest.Environment(t, env)
			o, err := aside.OptionsFromEnv()
			require.NoError(t, err)
			requireHidden(t, o, name)
		})
	}
}

// What OptionsFromEnv hides reaches a server that asks for it; Sentinels have a password of their own, or none, and are not sent that of
// the primary.
func TestCredentialsOfTheEnvironmentAreUsed(t *testing.T) {
	server := redistest.Start(t, "--requirepass", asidetest.Canary)
	asidetest.Environment(t, map[string]string{"REDIS_URL": "redis://:" + asidetest.Canary + "@" + server.Addr()})
	o, err := aside.OptionsFromEnv()
	require.NoError(t, err)
	c := asidetest.NewCache(t, o)
	asidetest.Eventually(t, "connected", func() bool { return c.Health().State == aside.StateConnected })
	asidetest.Environment(t, map[string]string{"REDIS_URL": "redis://:p@h:1?master_set=m"})
	o, err = aside.OptionsFromEnv()
	require.NoError(t, err)
	require.Nil(t, o.Redis.AuthCredentialsFn)
	require.Equal(t, "p", o.Redis.Password)
}

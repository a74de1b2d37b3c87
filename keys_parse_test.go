package aside_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

func TestAKeyIsParsedFromItsText(t *testing.T) {
	t.Parallel()
	p := &aside.Policy{Category: "things", TTL: time.Minute}
	for _, key := range []aside.Key{
		p.Key(), p.Key(""), p.Key("", ""), p.Key("a", 50, 0), p.Key("a:b"), p.Key("a%3Ab"), p.Key("*", "[a-z]", "}{", "line\nbreak"),
		p.Key("\xff"), p.Key("\u00fc\u0085"), p.Key("\ufffd"),
	} {
		got, err := p.ParseKey(key.String())
		require.NoError(t, err, key)
		require.Equal(t, key, got)
	}
}

func TestATextThatNoKeyHasIsRefused(t *testing.T) {
	t.Parallel()
	p := &aside.Policy{Category: "things", TTL: time.Minute}
	for _, text := range []string{
		"", "thing", "thingsx:a", "THINGS:a", ":things", "%all", "%c:things", "{things:a}!l", "others:a",
		"things:*", "things:a?", "things:[ab]", "things:{a}", "things:{a}!l", `things:a\b`, "things:a\nb", "things:\xff",
		"things:%", "things:%4", "things:%zz", "things:%3a", "things:%41", "things:%C3%BC",
	} {
		key, err := p.ParseKey(text)
		require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidKey}, text)
		require.Error(t, key.Err(), text)
	}
	_, err := (*aside.Policy)(nil).ParseKey("things:a")
	require.ErrorIs(t, err, &aside.Error{Code: aside.CodeInvalidKey})
}

// What is parsed is invalidated, and nothing beside it.
func TestAParsedKeyInvalidatesTheOneItStandsFor(t *testing.T) {
	t.Parallel()
	c, err := aside.New(aside.Options{})
	require.NoError(t, err)
	defer c.Close()
	ctx := context.Background()
	p := &aside.Policy{Category: "things", TTL: time.Minute}
	for _, id := range []string{"a:b", "a%3Ab", "a"} {
		require.NoError(t, aside.Set(ctx, c, p.Key(id), id))
	}
	key, err := p.ParseKey("things:a%3Ab")
	require.NoError(t, err)
	_, err = c.Invalidate(ctx, key)
	require.NoError(t, err)
	_, err = aside.Get[string](ctx, c, p.Key("a:b"))
	require.ErrorIs(t, err, aside.ErrMiss)
	for _, id := range []string{"a%3Ab", "a"} {
		_, err = aside.Get[string](ctx, c, p.Key(id))
		require.NoError(t, err)
	}
}

func ExamplePolicy_ParseKey() {
	policy := aside.Policy{Category: "things", TTL: time.Minute}
	fmt.Println(policy.Key("a:b", 7))
	key, err := policy.ParseKey("things:a%3Ab:7")
	fmt.Println(key == policy.Key("a:b", 7), err)
	_, err = policy.ParseKey("things:*")
	fmt.Println(err != nil)
	// Output:
	// things:a%3Ab:7
	// true <nil>
	// true
}

func FuzzParseKey(f *testing.F) {
	for _, text := range []string{"things", "things:", "things:a:50", "things:a%3Ab", "things:%25", "things:\xff", "things:*", "others:a"} {
		f.Add(text)
	}
	p := &aside.Policy{Category: "things", TTL: time.Minute}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := p.ParseKey(text)
		if err == nil && (key.Err() != nil || key.String() != text) {
			t.Fatalf("%q made the key %q", text, key)
		}
		if err != nil && !errors.Is(err, &aside.Error{Code: aside.CodeInvalidKey}) {
			t.Fatal(err)
		}
		made := p.Key(text, text)
		if again, err := p.ParseKey(made.String()); err != nil || again != made {
			t.Fatalf("the key %q came back as %q, %v", made, again, err)
		}
	})
}

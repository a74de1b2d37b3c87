package contract_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

type badText struct{}

func (badText) Error() string { panic("no text") }

// An awkward codec fails in a way of its own.
type awkward struct{ fail func() error }

func (awkward) Name() string                      { return "awkward" }
func (a awkward) Marshal(any) ([]byte, error)     { return nil, a.fail() }
func (a awkward) Unmarshal(_ []byte, _ any) error { return a.fail() }

// In memory mode the codec of the policy encodes what is shown. Whatever it does, there is an answer.
func TestInspectOfAValueWhoseCodecMisbehaves(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"a panic":                        func() error { panic("boom") },
		"a panic whose text panics":      func() error { panic(badText{}) },
		"an error whose text panics":     func() error { return badText{} },
		"an error whose cause is bad":    func() error { return errors.Join(errors.New("a"), badText{}) },
		"an error that is its own cause": func() error { e := &selfCaused{}; return e },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := aside.New(aside.Options{Logger: asidetest.Quiet()})
			require.NoError(t, err)
			defer c.Close()
			p := aside.Policy{Name: "p", Category: "items", TTL: time.Hour, Codec: awkward{fail}}
			get(t, c, p.Key("a"), asidetest.Value("v"))
			e, err := c.Inspect(context.Background(), p.Key("a"), 100)
			require.NoError(t, err)
			require.NotEmpty(t, e.Problem)
			require.Equal(t, aside.VerdictServed, e.Verdict)
		})
	}
}

type selfCaused struct{}

func (*selfCaused) Error() string   { return "self" }
func (e *selfCaused) Unwrap() error { return e }

// A value that is damaged anywhere has an answer, and a call loads it anew or gets the value as it was.
func TestInspectOfADamagedValue(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := asidetest.Connected(t, asidetest.At(server.Addr()))
	key := asidetest.Items.Key("a")
	large := asidetest.Items.Key("large")
	asidetest.Stored(t, c, key, longText, aside.WithTags("supplier 3"))
	asidetest.Stored(t, c, large, asidetest.Large(2*asidetest.Chunk))
	for _, k := range []aside.Key{key, large} {
		whole := server.MustDo(t, "GET", k.String()).(string)
		random := rand.New(rand.NewPCG(1, 1))
		for i := range 300 {
			b := []byte(whole)
			switch i % 3 {
			case 0:
				b = b[:random.IntN(len(b))]
			case 1:
				b[random.IntN(min(len(b), 300))] ^= byte(1 + random.IntN(255))
			case 2:
				at := random.IntN(min(len(b), 300))
				for j := at; j < min(len(b), at+8); j++ {
					b[j] = 0xff
				}
			}
			server.MustDo(t, "SET", k.String(), string(b))
			e := inspected(t, c, k, 1<<20)
			require.LessOrEqual(t, len(e.Payload), 1<<20)
			require.GreaterOrEqual(t, e.Age, time.Duration(0))
			require.GreaterOrEqual(t, e.TTL, time.Duration(0))
			if e.Verdict == aside.VerdictServed {
				require.NotEmpty(t, e.Payload)
			}
		}
	}
}

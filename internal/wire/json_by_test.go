package wire

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func usual() JSONFunctions { return JSONFunctions{json.Marshal, json.Unmarshal} }

// wrote has json.Marshal's texts changed.
func wrote(old, instead string) JSONFunctions {
	return JSONFunctions{func(v any) ([]byte, error) {
		data, err := json.Marshal(v)
		return bytes.ReplaceAll(data, []byte(old), []byte(instead)), err
	}, json.Unmarshal}
}

// reads has texts changed before json.Unmarshal sees them.
func reads(change func([]byte) []byte) JSONFunctions {
	return JSONFunctions{json.Marshal, func(data []byte, v any) error { return json.Unmarshal(change(data), v) }}
}

func TestFunctionsThatFollowTheRulesPass(t *testing.T) {
	t.Parallel()
	f := usual()
	require.NoError(t, f.Check())
	loose := JSONFunctions{func(v any) ([]byte, error) { // no escapes of HTML, a line feed at the end
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		err := e.Encode(v)
		return b.Bytes(), err
	}, json.Unmarshal}
	require.NoError(t, loose.Check())
}

func TestFunctionsThatDifferFromEncodingJSONAreFound(t *testing.T) {
	t.Parallel()
	cut := func(of string) func([]byte) []byte {
		return func(data []byte) []byte { return bytes.ReplaceAll(data, []byte(of), nil) }
	}
	for name, f := range map[string]JSONFunctions{
		"no Marshal":                   {nil, json.Unmarshal},
		"no Unmarshal":                 {json.Marshal, nil},
		"names in lower case":          wrote(`"Plain"`, `"plain2"`),
		"nil lists are empty":          wrote(`"List":null`, `"List":[]`),
		"the option string is ignored": wrote(`"Quoted":"5"`, `"Quoted":5`),
		"HTML is lost":                 wrote(`\u003c`, ``),
		"numbers are rounded":          wrote("9223372036854775807", "9223372036854775000"),
		"bytes are not Base64":         wrote(`"APv/"`, `"APv_"`),
		"Marshal panics":               {func(any) ([]byte, error) { panic("a bug") }, json.Unmarshal},
		"Marshal fails":                {func(any) ([]byte, error) { return nil, errNothing }, json.Unmarshal},
		"Unmarshal panics":             {json.Marshal, func([]byte, any) error { panic("a bug") }},
		"Unmarshal does nothing":       {json.Marshal, func([]byte, any) error { return nil }},
		"Unmarshal fails":              {json.Marshal, func([]byte, any) error { return errNothing }},
		"white space is refused": {json.Marshal, func(data []byte, v any) error {
			if len(data) > 0 && data[len(data)-1] <= ' ' {
				return errNothing
			}
			return json.Unmarshal(data, v)
		}},
		"what follows is ignored": {json.Marshal, func(data []byte, v any) error { return json.NewDecoder(bytes.NewReader(data)).Decode(v) }},
		"the case of names counts": reads(func(data []byte) []byte {
			return bytes.ReplaceAll(data, []byte(`"plain"`), []byte(`"not plain"`))
		}),
		"the first of two counts":      reads(func(data []byte) []byte { return bytes.ReplaceAll(data, []byte(`"Plain":2`), []byte(`"Plain":1`)) }),
		"unknown fields are refused":   {json.Marshal, strict},
		"half a pair of surrogates":    reads(cut(`\ud800`)),
		"an end of the list is missed": reads(func(data []byte) []byte { return bytes.ReplaceAll(data, []byte(",]"), []byte("]")) }),
		"other types are taken": {json.Marshal, func(data []byte, v any) error {
			if err := json.Unmarshal(data, v); reflect.TypeOf(err) != reflect.TypeFor[*json.UnmarshalTypeError]() {
				return err
			}
			return nil
		}},
		"any depth": {json.Marshal, func(data []byte, v any) error {
			if bytes.HasPrefix(data, []byte(strings.Repeat("[", 20_000))) {
				return nil
			}
			return json.Unmarshal(data, v)
		}},
	} {
		err := f.Check()
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "a bug", name)
	}
}

func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(bytes.TrimSpace(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errNothing
	}
	return nil
}

// An error names the field, so that a user knows which of his types are concerned.
func TestAnErrorOfTheCheckNamesWhatDiffers(t *testing.T) {
	t.Parallel()
	f := wrote(`"APv/"`, `"APv_"`)
	require.ErrorContains(t, f.Check(), "[]uint8")
	f = wrote(`"12345678901234567890.5"`, `1`)
	require.NoError(t, f.Check(), "nothing is written like that")
	f = wrote(`12345678901234567890.5`, `12345678901234567890`)
	require.ErrorContains(t, f.Check(), "json.Number")
}

// Functions may write what is not UTF-8 in another way than encoding/json does. It is a loss in any case.
func TestWhatFunctionsReplaceIsALoss(t *testing.T) {
	t.Parallel()
	spell := func(as string) Limits {
		f := wrote(`\ufffd`, as)
		return Limits{MaxValue: 1 << 20, JSON: &f}
	}
	for _, as := range []string{`\ufffd`, `\uFFFD`, "\ufffd", "\xff"} {
		_, err := spell(as).Marshal(JSON, &struct{ Text string }{"a\xff"})
		var loss *LossError
		require.ErrorAs(t, err, &loss, "%q", as)
		require.Equal(t, "Text", loss.Field, "%q", as)
		data, err := spell(as).Marshal(JSON, &struct{ Text string }{"a\ufffd, which is valid"})
		require.NoError(t, err, "%q", as)
		var back struct{ Text string }
		require.NoError(t, Unmarshal(JSON, data, &back))
		require.Equal(t, "a\ufffd, which is valid", back.Text, "%q", as)
	}
}

// The hashes of the fields are appended to what Marshal returns, and never into memory that it keeps.
func TestMemoryThatFunctionsKeepIsNotWrittenTo(t *testing.T) {
	t.Parallel()
	kept := append(make([]byte, 0, 4096), "7"...)
	rest := kept[1:cap(kept)]
	f := JSONFunctions{func(any) ([]byte, error) { return kept, nil }, json.Unmarshal}
	data, err := Limits{MaxValue: 1 << 20, JSON: &f}.Marshal(JSON, pointerTo(7))
	require.NoError(t, err)
	require.Greater(t, len(data), 1)
	require.Equal(t, make([]byte, len(rest)), rest)
}

func TestOnlyJSONIsGivenToTheFunctions(t *testing.T) {
	t.Parallel()
	f := usual()
	lim := Limits{MaxValue: 1 << 20, JSON: &f}
	require.Equal(t, CBOR, lim.Own(CBOR))
	require.Equal(t, Raw, lim.Own(Raw))
	require.NotEqual(t, JSON, lim.Own(JSON))
	require.Equal(t, "json", lim.Own(JSON).Name())
	require.Equal(t, ID(JSON), ID(lim.Own(JSON)))
	require.Equal(t, JSON, Limits{}.Own(JSON))
	// It has the bound of its limits.
	type node struct{ Next []*node }
	n := &node{}
	for range 20 {
		n = &node{[]*node{n, n}}
	}
	_, err := lim.Marshal(JSON, n)
	require.ErrorIs(t, err, ErrTooLarge)
}

package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strings"
	"time"
)

// JSONFunctions encode and decode JSON in place of encoding/json. They follow its rules: the same names, tags and methods of types.
type JSONFunctions struct {
	Marshal   func(v any) ([]byte, error)
	Unmarshal func(data []byte, v any) error
}

// Check tries the functions on values and texts for which implementations are known to differ from encoding/json. It finds most of those
// that would change a value, not all.
func (f *JSONFunctions) Check() (err error) {
	if f.Marshal == nil || f.Unmarshal == nil {
		return errors.New("set both Marshal and Unmarshal, or neither")
	}
	what := ""
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic of type %T with %s", p, what)
		}
	}()
	for _, of := range jsonSamples() {
		what = of.what
		if err := f.agrees(of.value); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	for _, text := range jsonTexts {
		what = "the text " + text
		got, want := new(jsonSample), new(jsonSample)
		if err := json.Unmarshal([]byte(text), want); err != nil {
			return err
		}
		if err := f.Unmarshal([]byte(text), got); err != nil || !reflect.DeepEqual(got, want) {
			return fmt.Errorf("Unmarshal does not decode %s as encoding/json does", what)
		}
	}
	for _, text := range notJSON {
		what = "the text " + text
		if f.Unmarshal([]byte(text), new(jsonSample)) == nil {
			return fmt.Errorf("Unmarshal returns no error for %s", what)
		}
	}
	what = "nested lists"
	if f.Unmarshal([]byte(strings.Repeat("[", tooDeep)+strings.Repeat("]", tooDeep)), new(any)) == nil {
		return fmt.Errorf("Unmarshal decodes %d lists in each other: it does not bound the nesting, so that a text could overflow the stack", tooDeep)
	}
	return nil
}

// tooDeep is beyond jsonNesting, and far from the end of the stack.
const tooDeep = 100_000

// agrees compares four ways through encoding and decoding, where the functions do both, encode, decode, or do nothing.
func (f *JSONFunctions) agrees(value any) error {
	data, err := f.Marshal(value)
	if err != nil {
		return fmt.Errorf("Marshal returns an error of type %T", err)
	}
	usual, err := json.Marshal(value)
	if err != nil {
		return err
	}
	fresh := func() any { return reflect.New(reflect.TypeOf(value).Elem()).Interface() }
	want := fresh()
	if err := json.Unmarshal(usual, want); err != nil {
		return err
	}
	for _, way := range []struct {
		data   []byte
		decode func([]byte, any) error
		fault  string
	}{
		{data, json.Unmarshal, "encoding/json does not decode what Marshal has written as it decodes its own"},
		{usual, f.Unmarshal, "Unmarshal does not decode what encoding/json has written as encoding/json does"},
		{data, f.Unmarshal, "Unmarshal does not decode what Marshal has written as encoding/json would"},
	} {
		if got := fresh(); way.decode(way.data, got) != nil || !reflect.DeepEqual(got, want) {
			return errors.New(way.fault)
		}
	}
	return nil
}

type jsonSample struct {
	Plain   int
	Named   string `json:"name"`
	Empty   []int  `json:",omitempty"`
	List    []string
	Bytes   []byte
	Array   [3]int
	Any     any
	Pointer *int
	LeftOut string `json:"-"`
	Time    time.Time
	sampleEmbedded
	*SampleEmbedded
}

// An otherSample has the kinds of fields that a jsonSample lacks.
type otherSample struct {
	Map     map[string]float64
	Numbers map[int]bool
	Quoted  int `json:",string"`
	//lint:ignore SA5008 this is how a field is named "-"
	Dash     int `json:"-,"`
	Big      *big.Int
	Written  sampleText
	Texts    map[sampleText]int
	Raw      json.RawMessage
	Smallest int64
	Largest  uint64
	Short    float32
	Long     float64
}

type sampleEmbedded struct {
	Inner int
	Named string // hidden by that of jsonSample
}

// SampleEmbedded is exported, since encoding/json sets no embedded pointer to a struct that is not.
type SampleEmbedded struct{ Deep []sampleEmbedded }

// A sampleText writes itself as text.
type sampleText struct{ of string }

// MarshalText implements encoding.TextMarshaler.
func (t sampleText) MarshalText() ([]byte, error) { return []byte("<" + t.of + ">"), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *sampleText) UnmarshalText(text []byte) error {
	of := string(text)
	if !strings.HasPrefix(of, "<") || !strings.HasSuffix(of, ">") {
		return errors.New("not of a sampleText")
	}
	t.of = of[1 : len(of)-1]
	return nil
}

// An example is a pointer to a value, with words for it.
type example struct {
	what  string
	value any
}

func jsonSamples() []example {
	sample := &jsonSample{
		Plain: -1, Named: "a\"b\\c\n\t\x00\u2028<&>ü😀", Empty: []int{1}, List: []string{"", "x"}, Bytes: []byte{0, 0xfb, 0xff}, Array: [3]int{1, 2, 3},
		Any: map[string]any{"l": []any{1.5, "s", nil, true}}, Pointer: pointerTo(3), LeftOut: "left out",
		Time:           time.Date(2024, 2, 29, 23, 59, 59, 123456789, time.FixedZone("", -5*3600)),
		sampleEmbedded: sampleEmbedded{Inner: 7, Named: "hidden"}, SampleEmbedded: &SampleEmbedded{Deep: []sampleEmbedded{{Inner: 8}}},
	}
	other := &otherSample{
		Map: map[string]float64{"": 0.1, "é": -1e-7}, Numbers: map[int]bool{-4: true}, Quoted: 5, Dash: 6, Big: new(big.Int).Lsh(big.NewInt(1), 90),
		Written: sampleText{"w"}, Texts: map[sampleText]int{{"k"}: 1}, Raw: json.RawMessage(`{"a":[1,{}]}`), Smallest: math.MinInt64, Largest: math.MaxUint64,
		Short: 0.1, Long: 1e21,
	}
	list := append(oneByOne(sample), oneByOne(other)...) // first, so that an error names the field
	return append(list,
		example{"a struct with all fields set", sample},
		example{"another struct with all fields set", other},
		example{"a struct whose lists and pointers are nil", new(jsonSample)},
		example{"a struct whose maps are nil", new(otherSample)},
		example{"a struct whose lists are empty", &jsonSample{Empty: []int{}, List: []string{}, Bytes: []byte{}, Any: []any{}}},
		example{"a struct whose maps are empty", &otherSample{Map: map[string]float64{}, Numbers: map[int]bool{}}},
		example{"a list", &[]sampleEmbedded{{Inner: 1}, {}}},
		example{"a nil list", new([]string)},
		example{"a map of any", &map[string]any{"a": nil, "b": 1e300, "c": map[string]any{}}},
		example{"a json.Number", pointerTo(json.Number("12345678901234567890.5"))},
		example{"a string with bytes that are not UTF-8", pointerTo("a\xffb\xc3")},
		example{"a number", pointerTo(math.MaxInt64)},
		example{"a pointer to nil", new(*jsonSample)},
	)
}

// oneByOne returns examples that each have one field of a struct set.
func oneByOne(all any) (list []example) {
	from := reflect.ValueOf(all).Elem()
	for i := range from.NumField() {
		if f := from.Type().Field(i); f.IsExported() {
			one := reflect.New(from.Type())
			one.Elem().Field(i).Set(from.Field(i))
			list = append(list, example{"a field of type " + f.Type.String() + " with the tag `" + string(f.Tag) + "`", one.Interface()})
		}
	}
	return list
}

func pointerTo[T any](v T) *T { return &v }

// jsonTexts are of a jsonSample.
var jsonTexts = []string{
	`{"plain":1,"NAME":"case","array":[1,2,3,4]}`,
	`{"Plain":1,"Plain":2,"Any":{"a":1,"a":2}}`,
	`{"Unknown":{"a":[1,2,{"b":"}"}]},"Plain":3}`,
	`{"Plain":null,"List":null,"Time":null,"Pointer":null,"Inner":null,"Array":[1]}`,
	`{"name":"\ud83d\ude00 \ud800 \u0000","Any":1e3}`,
	// The hashes of a type's fields are white space behind the text.
	` { "Plain" : 4 , "List" : [ ] } ` + "\n\t\r ",
	`null`,
}

// notJSON are texts that do not fit a jsonSample, or are not JSON.
var notJSON = []string{
	``, `{`, `{"Plain":1`, `{"Plain":1}x`, `{"Plain":1}{}`, `{"Plain":"1"}`, `{"Plain":1.5}`, `{"Plain":01}`, `{"Plain":9223372036854775808}`, `{"name":1}`, `{"List":{}}`,
	`{"List":["a",]}`, `{"Bytes":"*"}`, `{"Time":"yesterday"}`, `{"Unknown":tru}`, `{"name":"a` + "\n" + `b"}`, `[]`,
}

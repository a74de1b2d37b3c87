package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/fxamacker/cbor/v2"
	shamaton "github.com/shamaton/msgpack/v3"
	vmihailenco "github.com/vmihailenco/msgpack/v5"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidecodec"
	"github.com/gatewayz/aside/internal/wire"
)

// A codec is what a row is tried with.
type codec struct {
	name      string
	marshal   func(any) ([]byte, error)
	unmarshal func([]byte, any) error
	loose     bool // a json.RawMessage is what it says, not how it is spelled
	crashes   bool // a cycle ends the process
}

func own(name string, c aside.Codec, loose bool) codec {
	// The reason is said by an error of the codec itself; what the cache logs has the codec's name before it.
	return codec{name: name, marshal: func(v any) ([]byte, error) { return guarded(func() ([]byte, error) { return c.Marshal(v) }) }, unmarshal: c.Unmarshal, loose: loose}
}

func guarded(f func() ([]byte, error)) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

var (
	asideJSON = own("JSON", aside.JSON, true)
	asideCBOR = own("CBOR", aside.CBOR, false)
	asideRaw  = own("Raw", aside.Raw, false)
)

func bare(name string, marshal func(any) ([]byte, error), unmarshal func([]byte, any) error) codec {
	return codec{
		name:    name,
		marshal: func(v any) ([]byte, error) { return guarded(func() ([]byte, error) { return marshal(v) }) },
		unmarshal: func(data []byte, v any) error {
			_, err := guarded(func() ([]byte, error) { return nil, unmarshal(data, v) })
			return err
		},
	}
}

var candidates = []codec{
	asideJSON,
	asideCBOR,
	func() codec { c := bare("encoding/json", json.Marshal, json.Unmarshal); c.loose = true; return c }(),
	bareCBOR(),
	func() codec {
		c := bare("shamaton/msgpack v3.1.0", shamaton.MarshalAsMap, shamaton.UnmarshalAsMap)
		c.crashes = true
		return c
	}(),
	func() codec {
		c := bare("vmihailenco/msgpack v5.4.1", vmihailenco.Marshal, vmihailenco.Unmarshal)
		c.crashes = true
		return c
	}(),
}

// bareCBOR is the library with its defaults.
func bareCBOR() codec {
	c := bare("fxamacker/cbor v2.10.0", cbor.Marshal, cbor.Unmarshal)
	c.crashes = true
	return c
}

// jsonBySonic is JSON with the functions of asidecodec.
func jsonBySonic() codec {
	by := asidecodec.Sonic()
	return own("JSON by sonic", wire.Limits{MaxValue: math.MaxInt32, JSON: &by}.Own(wire.JSON), true)
}

var protobuf = own("protobuf", asidecodec.Protobuf(), false)

// encrypted is a codec of aside or asidecodec in one that encrypts.
func encrypted(name string, inner aside.Codec, loose bool) codec {
	// The secret is no secret here: the other process needs it too.
	c, err := asidecodec.Encryption{Keys: []asidecodec.Key{asidecodec.NewKey("a", []byte("a secret for the tables, 32 long"))}, Compress: true}.Codec(inner)
	if err != nil {
		panic(err)
	}
	return own("encrypted "+name, c, loose)
}

// sealed has each codec that can be in an encrypted one, and the two together.
var sealed = [][2]codec{
	{asideRaw, encrypted("Raw", aside.Raw, false)},
	{asideJSON, encrypted("JSON", aside.JSON, true)},
	{asideCBOR, encrypted("CBOR", aside.CBOR, false)},
	{protobuf, encrypted("protobuf", asidecodec.Protobuf(), false)},
}

func codecs() map[string]codec {
	all := map[string]codec{}
	bySonic := jsonBySonic()
	all[bySonic.name] = bySonic
	for _, c := range candidates {
		all[c.name] = c
	}
	for _, pair := range sealed {
		all[pair[0].name], all[pair[1].name] = pair[0], pair[1]
	}
	return all
}

// A line is a row of the table.
type line struct {
	name   string
	value  any // a pointer
	fresh  func() any
	others [4]func() any // as the other builds have the type
	single bool
}

func of[T any](name string, v T) line {
	return line{
		name: name, value: &row[T]{1, v}, fresh: func() any { return new(row[T]) },
		others: [4]func() any{func() any { return new(with[T]) }, func() any { return new(without) }, func() any { return new(renamed[T]) }, func() any { return new(retyped) }},
	}
}

func single[T any](name string, v T) line {
	return line{name: name, value: &v, fresh: func() any { return new(T) }, single: true}
}

// outcomes tries the row with a codec, and says why the first refusal was one.
func (l line) outcomes(c codec, other *child, table string, i int) (cells []string, why string) {
	data, err := c.marshal(l.value)
	if err != nil {
		for range builds {
			cells = append(cells, refused)
		}
		return cells, short(err)
	}
	want := dump(l.value, c.loose)
	note := func(cell string, err error) {
		cells = append(cells, cell)
		if err != nil && why == "" && (len(cells) < 5) {
			why = short(err)
		}
	}
	v := l.fresh()
	switch err := c.unmarshal(data, v); {
	case err != nil:
		note(refused, err)
	case dump(v, c.loose) == want:
		note(kept, nil)
	default:
		note(changed, nil)
	}
	switch got, ok := other.read(strings.ReplaceAll(c.name, " ", "_"), table, i, data); {
	case !ok:
		note(refused, errors.New(got))
	case got == want:
		note(kept, nil)
	default:
		note(changed, nil)
	}
	if l.single {
		return cells, why
	}
	for n, reader := range l.others {
		v := reader()
		err := c.unmarshal(data, v)
		switch {
		case err != nil:
			note(refused, err)
		case agrees(n, l.value, v, c.loose):
			note(kept, nil)
		default:
			note(changed, nil)
		}
	}
	return cells, why
}

func short(err error) string {
	return strings.ReplaceAll(err.Error(), "github.com/gatewayz/aside/bench/codecmatrix.", "main.") // as the test of this package spells its types
}

// A retyping is a field of one type, read by a build in which it has another one.
type retyping struct {
	from, to string
	value    any
	reader   func() any
	want     any // what it is read as where it is not refused
}

func retype[A, B any](from string, a A, to string, b B) retyping {
	return retyping{from, to, &row[A]{1, a}, func() any { return new(row[B]) }, &row[B]{1, b}}
}

func (r retyping) outcome(c codec) string {
	data, err := c.marshal(r.value)
	if err != nil {
		return refused
	}
	v := r.reader()
	if c.unmarshal(data, v) != nil {
		return refused
	}
	if r.want != nil && dump(v, c.loose) == dump(r.want, c.loose) {
		return kept
	}
	return changed
}

var retypings = []retyping{
	retype("int64, 7", int64(7), "int8", int8(7)),
	refusing[int8]("int64, 300", int64(300), "int8"),
	refusing[uint]("int, -1", -1, "uint"),
	refusing[float64]("int64, 2⁵³+1", int64(1<<53+1), "float64"),
	refusing[float32]("float64, 0.1", 0.1, "float32"),
	refusing[int]("float64, 1.5", 1.5, "int"),
	refusing[int]("string, 12", "12", "int"),
	refusing[string]("int, 12", 12, "string"),
	refusing[[]byte]("string, abcd", "abcd", "[]byte"),
	refusing[string]("[]byte", []byte("abc"), "string"),
	refusing[[2]int]("[3]int", [3]int{1, 2, 3}, "[2]int"),
	refusing[[3]int]("[2]int", [2]int{1, 2}, "[3]int"),
	refusing[int]("*int, nil", (*int)(nil), "int"),
	refusing[bool]("int, 1", 1, "bool"),
	refusing[[]string]("[]int", []int{1}, "[]string"),
	refusing[point]("map[string]int", map[string]int{"X": 1, "Z": 2}, "struct"),
	refusing[map[string]int]("struct with a bool", struct{ A bool }{true}, "map[string]int"),
	refusing[time64]("string", "x", "time.Time"),
	refusing[any]("int64, 2⁵³+1", int64(1<<53+1), "any"),
}

func refusing[B, A any](from string, a A, to string) retyping {
	r := retype(from, a, to, *new(B))
	r.want = nil
	return r
}

package main

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The types of the table. Each row is a struct with one field, V, of the type: so that what is refused has a field to be named. The field N
// beside it is what other builds have too.
type row[T any] struct {
	N int
	V T
}

// Other builds of the same type: the field V gone, another one there too, V under another name, V of another type.
type (
	without     struct{ N int }
	with[T any] struct {
		N     int
		V     T
		Added string
	}
	renamed[T any] struct {
		N    int
		Name T
	}
	retyped struct {
		N int
		V []complexInside
	}
	complexInside struct{ Deep []map[string]int8 }
)

type (
	celsius float64
	body    []byte
	letter  byte
	status  string
)

type point struct{ X, Y int }

// level has methods that make a text of it.
type level int

func (l level) MarshalText() ([]byte, error) {
	return []byte(strings.Repeat("*", int(l))), nil
}

func (l *level) UnmarshalText(b []byte) error { *l = level(len(b)); return nil }

// packed has methods that make bytes of it, and a field that is not exported.
type packed struct{ n byte }

func (p packed) MarshalBinary() ([]byte, error)  { return []byte{p.n, 0xff}, nil }
func (p *packed) UnmarshalBinary(b []byte) error { p.n = b[0]; return nil }
func (p packed) MarshalText() ([]byte, error)    { return []byte{'a' + p.n}, nil }
func (p *packed) UnmarshalText(b []byte) error   { p.n = b[0] - 'a'; return nil }

type oneWay struct{ Text string }

func (o oneWay) MarshalText() ([]byte, error) { return []byte(o.Text), nil }

type base struct{ ID, Name string }

type embeds struct {
	base
	*Pointed
	Own int
}

type Pointed struct{ At int }

type embedsHidden struct {
	base
	Name string
}

type embedsTime struct {
	time.Time
	Place string
}

type unexported struct {
	Kept string
	lost string
}

type locked struct {
	sync.Mutex
	Kept string
}

type (
	left      struct{ X string }
	right     struct{ X string }
	ambiguous struct {
		left
		right
	}
)

type tree struct {
	Name     string
	Children []*tree
}

type node struct{ Next *node }

type pair[K comparable, V any] struct {
	Key K
	Val V
}

type omits struct {
	Zero  int            `json:",omitempty"`
	Nil   []int          `json:",omitempty"`
	Map   map[string]int `json:",omitempty"`
	Point *int           `json:",omitempty"`
	Time  time.Time      `json:",omitzero"`
}

type namedInUnicode struct {
	Größe int
	Имя   string `json:"имя"`
	S     string `json:"模型"`
}

func ring() *node { n := new(node); n.Next = n; return n }

func deep(n int) *node {
	var top *node
	for range n {
		top = &node{top}
	}
	return top
}

func mustURL(s string) url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return *u
}

func bigNumber() *big.Int {
	n, _ := new(big.Int).SetString("-123456789012345678901234567890", 10)
	return n
}

func zone(name string, seconds int) time.Time {
	return time.Date(2026, 7, 1, 12, 30, 15, 123_456_789, time.FixedZone(name, seconds))
}

func structValue() *structpb.Struct {
	s, err := structpb.NewStruct(map[string]any{"a": 1.5, "b": []any{"x", nil}})
	if err != nil {
		panic(err)
	}
	return s
}

var seven = 7

// rows are the lines of the table, in its order.
var rows = []line{
	of("bool", true),
	of("int8 to int64, at their limits", [4]int64{math.MinInt8, math.MaxInt16, math.MinInt32, math.MinInt64}),
	of("int, largest", math.MaxInt),
	of("uint64, largest", uint64(math.MaxUint64)),
	of("uint8 to uint32, largest", struct {
		A uint8
		B uint16
		C uint32
	}{math.MaxUint8, math.MaxUint16, math.MaxUint32}),
	of("uintptr", uintptr(7)),
	of("float64, smallest, largest, -0", []float64{math.SmallestNonzeroFloat64, math.MaxFloat64, math.Copysign(0, -1), 0.1}),
	of("float32, smallest, largest", []float32{math.SmallestNonzeroFloat32, math.MaxFloat32, 0.1}),
	of("float64, NaN", math.NaN()),
	of("float64, infinite", math.Inf(-1)),
	of("complex128", 1+2i),
	of("a type defined as float64", celsius(36.6)),
	of("*big.Int", bigNumber()),
	of("big.Int", *bigNumber()),
	of("map[string]big.Int", map[string]big.Int{"a": *bigNumber()}),
	of("*big.Float", big.NewFloat(0.1)),
	of("*big.Rat", big.NewRat(1, 3)),
	of("json.Number", json.Number("9007199254740993")),
	of("json.Number, empty", json.Number("")),
	of("time.Time, UTC", zone("", 0).UTC()),
	of("time.Time, zone of whole minutes", zone("IST", 19800)),
	of("time.Time, zone with seconds", zone("LMT", 3208)),
	of("time.Time, zero", time.Time{}),
	of("time.Time, year 10000", time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)),
	of("time.Time, monotonic", time.Now()),
	of("*time.Time, zero", &time.Time{}),
	of("time.Duration", time.Duration(math.MinInt64)),
	of("netip.Addr, with a zone", netip.MustParseAddr("fe80::1%eth0")),
	of("netip.Addr, none", netip.Addr{}),
	of("netip.Prefix", netip.MustParsePrefix("10.0.0.0/8")),
	of("net.IP, 4 bytes", net.IP{127, 0, 0, 1}),
	of("net.IP, nil", net.IP(nil)),
	of("url.URL", mustURL("https://example.com/a%2Fb?q=1#f")),
	of("url.URL, with a password", mustURL("https://user:word@example.com/")),
	of("text methods", level(3)),
	of("text and binary methods", packed{7}),
	of("text method one way", oneWay{"a"}),
	of("embedded structs", embeds{base: base{"1", "n"}, Pointed: &Pointed{5}, Own: 2}),
	of("embedded struct, nil", embeds{Own: 2}),
	of("embedded, a field hides another", embedsHidden{base: base{"1", "lost"}, Name: "kept"}),
	of("embedded time.Time beside a field", embedsTime{zone("", 0).UTC(), "here"}),
	of("two fields of one name", ambiguous{left{"a"}, right{"b"}}),
	of("unexported field", unexported{"kept", "lost"}),
	of("lock", &locked{Kept: "kept"}),
	of("any: nil, bool, string, float64", []any{nil, true, "text", 0.5}),
	of("any: int64", any(int64(math.MaxInt64))),
	of("any: int", any(1)),
	of("any: []any and map[string]any", any(map[string]any{"a": []any{"x", map[string]any{}}})),
	of("any: []string", any([]string{"a"})),
	of("any: []byte", any([]byte{0xff})),
	of("any: a struct", any(point{1, 2})),
	of("any: time.Time", any(zone("", 0).UTC())),
	of("any: a list of itself", func() any { l := make([]any, 1); l[0] = l; return l }()),
	of("error, nil", error(nil)),
	of("error", errors.New("text")),
	of("map[string]int", map[string]int{"": 1, "ключ": 2}),
	of("map[status]int", map[status]int{"a": 1}),
	of("map[int8]string", map[int8]string{-128: "a", 127: "b"}),
	of("map[bool]int", map[bool]int{true: 1}),
	of("map[float64]int", map[float64]int{0.5: 1}),
	of("map[point]int", map[point]int{{1, 2}: 3}),
	of("map[[2]int]int", map[[2]int]int{{1, 2}: 3}),
	of("map, keys with text methods", map[netip.Addr]int{netip.MustParseAddr("::1"): 1}),
	of("map[*int]int", map[*int]int{&seven: 1}),
	of("map[any]int", map[any]int{"a": 1}),
	of("map[time.Time]int, UTC", map[time.Time]int{zone("", 0).UTC(): 1}),
	of("map[time.Time]int, another zone", map[time.Time]int{zone("IST", 19800): 1}),
	of("recursive type", &tree{"a", []*tree{{"b", nil}, {"c", []*tree{}}}}),
	of("cycle", ring()),
	of("20,000 levels", deep(20_000)),
	of("string, not ASCII", "模型 🚀 \x00\u2028<&>"),
	of(`string, U+FFFD and \ufffd`, "\ufffd \\ufffd"),
	of("string, not UTF-8", "caf\xe9"),
	of("map key, not UTF-8", map[string]int{"caf\xe9": 1, "caf\xe8": 2}),
	of("field names, not ASCII", namedInUnicode{1, "b", "c"}),
	of("[]byte", []byte{0, 0xff}),
	of("named []byte", body{0, 0xff}),
	of("[]letter", []letter{1, 0xff}),
	of("[16]byte", [16]byte{1, 15: 0xff}),
	of("json.RawMessage", json.RawMessage(`{"b":1,"a":[null]}`)),
	of("json.RawMessage, nil", json.RawMessage(nil)),
	of("json.RawMessage, malformed", json.RawMessage(`{`)),
	of("slice, nil", []int(nil)),
	of("slice, empty", []int{}),
	of("[]byte, nil", []byte(nil)),
	of("[]byte, empty", []byte{}),
	of("map, nil", map[string]int(nil)),
	of("map, empty", map[string]int{}),
	of("pointer, nil", (*point)(nil)),
	of("pointer", &point{1, 2}),
	of("pointer to a pointer", func() **int { p := &seven; return &p }()),
	of("pointer to a nil pointer", new(*int)),
	of("pointer to a nil slice", new([]int)),
	of("array", [3]point{{1, 2}}),
	of("array of slices", [2][]string{nil, {}}),
	of("generic type", pair[string, []point]{"a", []point{{1, 2}}}),
	of("omitempty", omits{}),
	of("omitempty, empty list", omits{Nil: []int{}, Map: map[string]int{}}),
	of("chan", make(chan int)),
	of("func, nil", (func())(nil)),
	of("protobuf: Timestamp", timestamppb.New(zone("", 0))),
	of("protobuf: Struct, with a oneof", structValue()),
}

// alone are values that are no field of a struct.
var alone = []line{
	single("string, not UTF-8", "caf\xe9"),
	single("named string", status("caf\xe9")),
	single("[]byte", []byte{0, 0xff}),
	single("[]byte, nil", []byte(nil)),
	single("[]byte, empty", []byte{}),
	single("named []byte", body{0, 0xff}),
	single("json.RawMessage", json.RawMessage(` {"a": 1}`)),
	single("json.RawMessage, nil", json.RawMessage(nil)),
	single("net.IP, 4 bytes", net.IP{127, 0, 0, 1}),
	single("struct", point{1, 2}),
	single("*struct, nil", (*point)(nil)),
	single("[]struct", []point{{1, 2}}),
	single("map[string]int", map[string]int{"a": 1}),
	single("any: map[string]any", any(map[string]any{"a": []any{"x", nil}})),
	single("protobuf: *Timestamp", timestamppb.New(zone("", 0))),
	single("protobuf: *Timestamp, empty", new(timestamppb.Timestamp)),
	single("protobuf: *Timestamp, nil", (*timestamppb.Timestamp)(nil)),
	single("protobuf: *Struct, with a oneof", structValue()),
	single("protobuf: []*Timestamp", []*timestamppb.Timestamp{timestamppb.New(zone("", 0))}),
}

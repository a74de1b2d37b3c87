package near

import (
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	word      = 8
	strHeader = 2 * word
	sliHeader = 3 * word
	ifcHeader = 2 * word
)

type flat struct {
	A int64
	B [2]int64
}

type session struct {
	ID    string
	Turns []string
	Owner *flat
	notes map[string]int64
	any   any
}

// A family knows its children, and each child its parent.
type family struct {
	parent   *family
	children []*family
	name     string
}

func grow(parent *family, depth, width int) *family {
	f := &family{parent: parent, name: strings.Repeat("n", 10)}
	if depth > 0 {
		for range width {
			f.children = append(f.children, grow(f, depth-1, width))
		}
	}
	return f
}

type ring struct {
	next *ring
	text string
}

func newRing(n int) *ring {
	first := &ring{text: "0123456789"}
	last := first
	for range n - 1 {
		last.next = &ring{text: "0123456789"}
		last = last.next
	}
	last.next = first
	return first
}

func TestSizeCountsWhatAValueHolds(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 100)
	shared := &flat{}
	var none *session
	tests := map[string]struct {
		v    any
		want int64
	}{
		"nil":                       {nil, 0},
		"nil pointer":               {none, word},
		"nil slice":                 {[]string(nil), sliHeader},
		"nil map":                   {map[string]string(nil), word},
		"number":                    {int32(7), 4},
		"time":                      {time.Duration(7), word},
		"string":                    {text, strHeader + 100},
		"pointer to a string":       {&text, word + strHeader + 100},
		"bytes":                     {make([]byte, 1000), sliHeader + 1000},
		"bytes, with what is spare": {make([]byte, 10, 1000), sliHeader + 1000},
		"megabytes":                 {make([]byte, 20<<20), sliHeader + 20<<20},
		"array":                     {[4]int64{}, 4 * word},
		"array of strings":          {[2]string{text, text}, 2 * (strHeader + 100)},
		"strings":                   {[]string{text, text, text}, sliHeader + 3*(strHeader+100)},
		"no memory behind it":       {flat{}, 3 * word},
		"pointer":                   {&flat{}, word + 3*word},
		"pointer to a pointer":      {&shared, word + word + 3*word},
		"struct with unexported fields": {
			session{ID: text, Turns: []string{text}, Owner: &flat{}, notes: map[string]int64{text: 1}, any: text},
			(strHeader + sliHeader + word + word + ifcHeader) + 100 + (strHeader + 100) + 3*word + (strHeader + word + 16 + 100) + (strHeader + 100),
		},
		"empty struct":           {struct{}{}, 0},
		"nested":                 {struct{ S struct{ P *session } }{}, word},
		"interfaces":             {[]any{nil, int64(1), text}, sliHeader + 3*ifcHeader + word + strHeader + 100},
		"map":                    {map[int64]string{1: text, 2: text}, word + 2*(word+strHeader+16+100)},
		"map of numbers":         {map[int64]int64{1: 1, 2: 2}, word + 2*(word+word+16)},
		"the same twice":         {[]*flat{shared, shared}, sliHeader + 2*word + 3*word},
		"channel and function":   {struct{ c, f any }{make(chan int, 100), func() {}}, 2*ifcHeader + 2*word},
		"a struct and its field": {struct{ a, b any }{&shared.A, shared}, 2*ifcHeader + 2*word + word + 3*word},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, Size(test.v))
		})
	}
}

func TestAValueThatRefersToItselfIsCountedOnce(t *testing.T) {
	t.Parallel()
	type list []list
	loop := make(list, 10)
	for i := range loop {
		loop[i] = loop
	}
	tangle := map[string]any{}
	tangle["me"], tangle["again"] = tangle, tangle
	var self any
	self = &self
	person := int64(reflect.TypeFor[family]().Size()) + 10

	tests := map[string]struct {
		v    any
		want int64
	}{
		"ring of one":       {newRing(1), word + 1*(word+strHeader+10)},
		"ring of a hundred": {newRing(100), word + 100*(word+strHeader+10)},
		"slice in itself":   {loop, sliHeader + 10*sliHeader},
		"map in itself":     {tangle, word + 2*(strHeader+ifcHeader+16) + int64(len("me")+len("again")) + 2*word},
		"pointer to itself": {self, word + ifcHeader + word},
		// 1+2+4+8 people, who all but the first have a pointer in their parent's list.
		"tree with parents": {grow(nil, 3, 2), word + 15*person + 14*word},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, Size(test.v))
		})
	}
}

// Whatever shape a value has, its size ends a walk that is short, and is one that a bound can be held against.
func TestTheSizeOfALargeGraphIsAPositiveFigureAfterBoundedWork(t *testing.T) {
	t.Parallel()
	type node struct{ out []*node }
	graph := make([]*node, 2000)
	for i := range graph {
		graph[i] = &node{}
	}
	for i, n := range graph { // everybody knows everybody: two million pointers
		n.out = graph[i/2:]
	}
	type deep []deep
	nest := make(deep, 100)
	for range 3000 {
		outer := make(deep, 100)
		outer[0] = nest
		nest = outer
	}
	for name, v := range map[string]any{"graph": graph[0], "long ring": newRing(100_000), "deep": nest, "wide tree": grow(nil, 4, 12)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			budget := visits
			w := &walk{}
			size := w.indirect(reflect.ValueOf(v), &budget)
			require.Positive(t, size)
			require.LessOrEqual(t, size, int64(huge)*visits)
			require.GreaterOrEqual(t, budget, 0)
			// Each step has at most one place of its own, and may look one step further.
			require.Less(t, len(w.seen), 3*visits)
		})
	}
}

func TestALargeValueIsEstimatedFromASample(t *testing.T) {
	t.Parallel()
	const n = 100_000

	texts := make([]string, n)
	var textBytes int64
	for i := range texts {
		texts[i] = strings.Repeat("x", i%200)
		textBytes += int64(len(texts[i]))
	}
	pointers := make([]*flat, n)
	models := make([]session, n)
	byName := make(map[string]*flat, n)
	for i := range n {
		pointers[i] = &flat{}
		models[i] = session{ID: "0123456789", Turns: []string{"ab", "cd", "ef"}, Owner: &flat{}}
		byName["model "+strconv.Itoa(n+i)] = &flat{}
	}
	const model = strHeader + sliHeader + word + word + ifcHeader + 10 + 3*(strHeader+2) + 3*word
	groups := make([][]string, 100)
	for i := range groups {
		groups[i] = texts[i*1000 : (i+1)*1000 : (i+1)*1000]
	}

	tests := map[string]struct {
		v    any
		want int64
	}{
		"numbers":               {make([]int64, n), n * word},
		"strings":               {texts, n*strHeader + textBytes},
		"pointers":              {pointers, n * (word + 3*word)},
		"structs":               {models, n * model},
		"map":                   {byName, n * (strHeader + word + 16 + 12 + 3*word)},
		"slices in a slice":     {groups, n*strHeader + textBytes},
		"lists in a struct":     {struct{ A, B []session }{models[: n/2 : n/2], models[n/2:]}, n * model},
		"bytes behind a list":   {&struct{ A, B any }{models, make([]byte, 50<<20)}, n*model + 50<<20},
		"a record as a map":     {map[string]any{"models": models, "raw": make([]byte, 50<<20), "names": texts}, n*model + 50<<20 + n*strHeader + textBytes},
		"a record as a slice":   {[]any{models, pointers, make([]byte, 50<<20)}, n*model + n*4*word + 50<<20},
		"two maps of one kind":  {[2]map[string]*flat{byName, {}}, n * (strHeader + word + 16 + 12 + 3*word)},
		"a list of empty lists": {make([][]string, n), n * sliHeader},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.InEpsilon(t, test.want, Size(test.v), 0.2)
		})
	}
}

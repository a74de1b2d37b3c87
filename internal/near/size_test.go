package near

import (
	"bytes"
	"container/list"
	"math/big"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	Notes map[string]int64
	Any   any
}

// A family knows its children, and each child its parent.
type family struct {
	Parent   *family
	Children []*family
	Name     string
}

func grow(parent *family, depth, width int) *family {
	f := &family{Parent: parent, Name: strings.Repeat("n", 10)}
	if depth > 0 {
		for range width {
			f.Children = append(f.Children, grow(f, depth-1, width))
		}
	}
	return f
}

type ring struct {
	Next *ring
	Text string
}

func newRing(n int) *ring {
	first := &ring{Text: "0123456789"}
	last := first
	for range n - 1 {
		last.Next = &ring{Text: "0123456789"}
		last = last.Next
	}
	last.Next = first
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
		"nil":                         {nil, 0},
		"nil pointer":                 {none, word},
		"nil slice":                   {[]string(nil), sliHeader},
		"nil map":                     {map[string]string(nil), word},
		"number":                      {int32(7), 4},
		"time":                        {time.Duration(7), word},
		"string":                      {text, strHeader + 100},
		"pointer to a string":         {&text, word + strHeader + 100},
		"bytes":                       {make([]byte, 1000), sliHeader + 1000},
		"bytes, with what is spare":   {make([]byte, 10, 1000), sliHeader + 1000},
		"megabytes":                   {make([]byte, 20<<20), sliHeader + 20<<20},
		"strings, with what is spare": {make([]string, 1, 10), sliHeader + 10*strHeader},
		"array":                       {[4]int64{}, 4 * word},
		"array of strings":            {[2]string{text, text}, 2 * (strHeader + 100)},
		"strings":                     {[]string{text, text, text}, sliHeader + 3*(strHeader+100)},
		"no memory behind it":         {flat{}, 3 * word},
		"pointer":                     {&flat{}, word + 3*word},
		"pointer to a pointer":        {&shared, word + word + 3*word},
		"struct": {
			session{ID: text, Turns: []string{text}, Owner: &flat{}, Notes: map[string]int64{text: 1}, Any: text},
			(strHeader + sliHeader + word + word + ifcHeader) + 100 + (strHeader + 100) + 3*word + (strHeader + word + 16 + 100) + (strHeader + 100),
		},
		"empty struct":           {struct{}{}, 0},
		"nested":                 {struct{ S struct{ P *session } }{}, word},
		"interfaces":             {[]any{nil, int64(1), text}, sliHeader + 3*ifcHeader + word + strHeader + 100},
		"map":                    {map[int64]string{1: text, 2: text}, word + 2*(word+strHeader+16+100)},
		"map of numbers":         {map[int64]int64{1: 1, 2: 2}, word + 2*(word+word+16)},
		"the same twice":         {[]*flat{shared, shared}, sliHeader + 2*word + 3*word},
		"channel and function":   {struct{ C, F any }{make(chan int, 100), func() {}}, 2*ifcHeader + 2*word},
		"a struct and its field": {struct{ A, B any }{&shared.A, shared}, 2*ifcHeader + 2*word + word + 3*word},
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
		"linked both ways":  {newChain(50), word + 50*2*word},
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

type link struct{ Next, Prev *link }

func newChain(n int) *link {
	first := &link{}
	for last := first; n > 1; n-- {
		last.Next = &link{Prev: last}
		last = last.Next
	}
	return first
}

type inner struct{ Notes map[string]string }

type middle struct{ inner }

// The fields of an embedded struct are read whatever its type is called, those of an unexported field are not: reflect refuses that.
func TestMapsOfEmbeddedStructsAreCounted(t *testing.T) {
	t.Parallel()
	notes := map[string]string{"12345": "1234567890"}
	const entry = 2*strHeader + 16 + 15
	require.EqualValues(t, word+entry, Size(inner{notes}))
	require.EqualValues(t, word+entry, Size(middle{inner{notes}}))
	require.EqualValues(t, word+word+entry, Size(&middle{inner{notes}}))
	require.EqualValues(t, word, Size(struct{ hidden map[string]string }{notes}))
	require.EqualValues(t, word, Size(struct{ hidden inner }{inner{notes}}))
	require.EqualValues(t, word, Size(struct{ *inner }{&inner{notes}}))
}

// What a value refers to does not stay in memory because it was measured.
func TestAWalkRefersToNothingAfterItsEnd(t *testing.T) {
	t.Parallel()
	v := &session{ID: "id", Turns: []string{"turn"}, Owner: &flat{}, Notes: map[string]int64{"note": 1}, Any: map[string]string{"key": "value"}}
	w := walks.New().(*walk)
	w.count(reflect.ValueOf(v), 1, false)
	w.run()
	require.Positive(t, w.seen.count())
	w.clear()
	require.Zero(t, w.seen.count())
	require.Empty(t, w.text.String())
	for _, it := range append(w.level[:cap(w.level)], w.next[:cap(w.next)]...) {
		require.False(t, it.v.IsValid())
	}
	for _, p := range w.seen.few[:cap(w.seen.few)] {
		require.Nil(t, p.at)
	}
}

// Whatever shape a value has, its size ends a walk that is short, and is one that a bound can be held against.
func TestTheSizeOfALargeGraphIsAPositiveFigureAfterBoundedWork(t *testing.T) {
	t.Parallel()
	type node struct{ Out []*node }
	graph := make([]*node, 2000)
	for i := range graph {
		graph[i] = &node{}
	}
	for i, n := range graph { // everybody knows everybody: two million pointers
		n.Out = graph[i/2:]
	}
	type deep []deep
	nest := make(deep, 100)
	for range 3000 {
		outer := make(deep, 100)
		outer[0] = nest
		nest = outer
	}
	type maps map[int]maps
	var slices func(depth int) deep
	slices = func(depth int) deep {
		if depth == 0 {
			return deep{nil}
		}
		return deep{slices(depth - 1), slices(depth - 1)}
	}
	var tables func(depth int) maps
	tables = func(depth int) maps {
		if depth == 0 {
			return maps{}
		}
		return maps{0: tables(depth - 1), 1: tables(depth - 1)}
	}
	shapes := map[string]any{
		"graph": graph[0], "long ring": newRing(100_000), "deep": nest, "wide tree": grow(nil, 4, 12), "slices": slices(15), "maps": tables(15),
	}
	for name, v := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			size := Size(v)
			require.Positive(t, size)
			require.LessOrEqual(t, size, int64(huge))
			require.Equal(t, size, Size(v), "a value has one size")

			w := walks.New().(*walk)
			w.count(reflect.ValueOf(v), 1, false)
			w.run()
			require.Positive(t, w.seen.count())
			// Each visit looks at no more than a struct's fields, of which none here has more than two that are remembered.
			require.LessOrEqual(t, w.seen.count(), 2*visits)
			require.Greater(t, w.left, -visits/4, "a level takes no more than its quarter")
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

type base struct{ Text string }

type hidden struct {
	base         // what is promoted is the outer struct's
	text         string
	raw          []byte
	list         []string
	pairs        [1][]string
	table        map[string]string
	pointer      *string
	any          any
	inner        struct{ M map[string]string }
	channel      chan string
	function     func()
	Listed       []string
	innerStrings struct{ A [2]string }
}

type locked struct {
	sync.Mutex
	Text string
}

func TestWhatATypeKeepsToItselfIsNotFollowed(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 100)
	table := map[string]string{text: text}
	list := []string{text, text}
	var number atomic.Pointer[string]
	number.Store(&text)
	sizeOf := func(v any) int64 { return int64(reflect.TypeOf(v).Size()) }
	secret := hidden{
		base: base{text}, text: text, raw: make([]byte, 10, 1000), list: list, pairs: [1][]string{{text}}, table: table, pointer: &text, any: text,
		channel: make(chan string, 100), function: func() { t.Log(text) }, Listed: []string{text},
	}
	secret.inner.M = table
	secret.innerStrings.A = [2]string{text, text}
	type counter struct {
		N    *atomic.Int64
		Text string
	}
	type around struct {
		Inner locked
		Text  string
	}
	type rows struct {
		Locks [2]sync.RWMutex
		Text  string
	}
	type shared struct {
		L    sync.Locker
		Text string
	}
	type besides struct {
		Locked *locked
		Text   string
	}
	tests := map[string]struct {
		v    any
		want int64
	}{
		"unexported fields":           {secret, sizeOf(secret) + 100 + 100 + 1000 + 2*strHeader + strHeader + (strHeader + 100) + 200},
		"a lock beside":               {&locked{Text: text}, word + sizeOf(locked{})},
		"a lock in a struct within":   {&around{Text: text}, word + sizeOf(around{})},
		"locks in an array":           {&rows{Text: text}, word + sizeOf(rows{})},
		"a pointer to an atomic":      {&counter{Text: text}, word + sizeOf(counter{})},
		"any locker":                  {&shared{Text: text}, word + sizeOf(shared{})},
		"a lock in a struct far away": {&besides{&locked{Text: text}, text}, word + sizeOf(besides{}) + 100 + sizeOf(locked{})},
		"an atomic by itself":         {&number, word + word},
		"sync.Map":                    {&sync.Map{}, word + sizeOf(sync.Map{})},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, Size(test.v))
		})
	}
}

// A client guards a map with its lock, as a value that a loader has built may.
type client struct {
	mu       sync.Mutex
	sessions map[string]string
	Name     string
}

// A pool guards its clients with a lock of its own, which is not the clients'.
type pool struct {
	guard   chan struct{} // a lock, though not one of package sync
	clients map[string]*client
}

// The race detector, and without it the runtime's own check of maps, end the test if Size looks at what the lock guards.
func TestSizeMayRunWhileAValueChangesUnderItsOwnLock(t *testing.T) {
	t.Parallel()
	c := &client{sessions: map[string]string{"a": "b"}, Name: "name"}
	p := &pool{guard: make(chan struct{}, 1), clients: map[string]*client{"c": c}}
	value := []any{c, p, map[string]*client{"c": c}}
	want := Size(value)
	var stop atomic.Bool
	var writes atomic.Uint64
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := 0; !stop.Load(); n++ {
			key := strconv.Itoa(n % 64)
			c.mu.Lock()
			c.sessions[key] = key
			delete(c.sessions, strconv.Itoa((n+32)%64))
			c.mu.Unlock()
			p.guard <- struct{}{}
			p.clients[key] = c
			<-p.guard
			writes.Add(1)
		}
	})
	sized, during := 0, 0
	ok := await(func() bool {
		before := writes.Load()
		if Size(value) != want {
			return true
		}
		sized++
		if writes.Load() > before {
			during++
		}
		return during >= 500
	})
	stop.Store(true)
	writer.Wait()
	t.Logf("%d of %d sizes were taken while the maps changed", during, sized)
	require.True(t, ok)
	require.Equal(t, 500, during, "a size that changes has looked at what the lock guards")
}

func TestSizePanicsOnNothing(t *testing.T) {
	t.Parallel()
	var nothing any
	var reader *bytes.Reader
	values := map[string]any{
		"empty elements":  make([]struct{}, 1<<62),
		"empty arrays":    [1 << 40]struct{}{},
		"no elements":     [0]*int{},
		"pointer to nil":  &nothing,
		"nil of a type":   reader,
		"list":            list.New(),
		"number":          big.NewInt(1 << 40),
		"time":            time.Now(),
		"http client":     http.DefaultClient,
		"reflect value":   reflect.ValueOf(map[string]int{"a": 1}),
		"reflect type":    reflect.TypeFor[pool](),
		"test":            t,
		"map of nil":      map[any]any{nil: nil, 1: nil, "a": []any{nil}},
		"nil function":    (func())(nil),
		"unsafe":          reflect.ValueOf(&nothing).UnsafePointer(),
		"array of arrays": [3][2][]any{{{1}, nil}},
	}
	for name, v := range values {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.NotPanics(t, func() { require.GreaterOrEqual(t, Size(v), int64(0)) })
		})
	}
}

// A walk is used again. What it has kept of a value with very many parts would be cleared after each later value.
func TestALargeValueDoesNotSlowTheSizeOfTheNext(t *testing.T) {
	t.Parallel()
	w := walks.New().(*walk)
	large, small := make([]*[20]*string, 10_000), &session{ID: "a", Turns: []string{"b"}, Owner: &flat{}}
	for i := range large {
		large[i] = new([20]*string)
		for j := range large[i] {
			large[i][j] = new(string)
		}
	}
	for _, v := range []any{large, small} {
		w.count(reflect.ValueOf(v), 1, false)
		w.run()
		w.clear()
		require.LessOrEqual(t, cap(w.level), usualItems)
		require.LessOrEqual(t, cap(w.next), usualItems)
		for _, items := range [][]item{w.level[:cap(w.level)], w.next[:cap(w.next)]} {
			for _, it := range items {
				require.False(t, it.v.IsValid(), "the value would stay in memory")
			}
		}
	}
	require.Positive(t, cap(w.level), "a usual value needs no room again")
}

// A message of protobuf has an empty array of a lock, so that vet finds copies of it. Nobody locks that.
func TestSizeCountsAStructThatMustNotBeCopied(t *testing.T) {
	t.Parallel()
	type message struct {
		_    struct{ _ [0]sync.Mutex }
		Text []byte
	}
	require.GreaterOrEqual(t, Size(&message{Text: make([]byte, 1<<20)}), int64(1<<20))
	require.Less(t, Size(&struct {
		_    [1]sync.Mutex
		Text []byte
	}{Text: make([]byte, 1<<20)}), int64(1<<20), "another goroutine may write to it")
}

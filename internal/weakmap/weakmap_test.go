package weakmap

import (
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

type value struct{ name string }

func fill(m *Map[value], from, to int) (all []*value) {
	for i := from; i < to; i++ {
		v := &value{strconv.Itoa(i)}
		m.Note(v.name, v)
		all = append(all, v)
	}
	return all
}

func collect() {
	runtime.GC()
	runtime.GC() // what a collection under way has marked before
}

func TestWhatSomebodyHoldsIsFoundAndTheNewestToo(t *testing.T) {
	m := New[value](10)
	require.Nil(t, m.Find("0"))
	require.Nil(t, m.Take("0"))
	held := fill(&m, 0, 100)
	fill(&m, 100, 1000)
	collect()
	found := make(map[string]*value)
	for name, v := range m.All() {
		require.Equal(t, name, v.name)
		found[name] = v
	}
	require.Len(t, found, 110, "those that are held, and the newest")
	for i, v := range held {
		require.Same(t, v, m.Find(strconv.Itoa(i)))
	}
	require.Equal(t, "999", m.Find("999").name)
	require.Nil(t, m.Find("989"))
	clear(found)

	require.Same(t, held[0], m.Take("0"))
	require.Nil(t, m.Find("0"))
	other := &value{"another"}
	m.Note("1", other)
	require.Same(t, other, m.Find("1"), "it takes the place of the last one")
	runtime.KeepAlive(held)
}

func TestANameWhoseValueIsGoneTakesNoMemoryForLong(t *testing.T) {
	m := New[value](10)
	for n := range 100 {
		fill(&m, 1000*n, 1000*(n+1))
		collect()
		require.LessOrEqual(t, m.Len(), 2*1000+20)
	}
}

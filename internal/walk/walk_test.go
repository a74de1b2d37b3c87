package walk_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/walk"
)

type inner struct {
	text  string
	bytes []byte
	array [3]byte
}

type outer struct {
	one   inner
	two   *inner
	any   any
	table map[string]inner
	list  []*inner
	self  *outer
	hides func() string
}

func TestTextsAreFoundWhereverTheyAre(t *testing.T) {
	t.Parallel()
	in := func(name string) inner {
		return inner{name + "-text", []byte(name + "-bytes"), [3]byte([]byte(name[:3]))}
	}
	two, any, listed := in("two"), in("any"), in("list")
	hidden := "hidden"
	o := outer{in("one"), &two, any, map[string]inner{"key": in("table")}, []*inner{&listed}, nil, func() string { return hidden }}
	o.self = &o
	var all []string
	walk.Texts(o, func(_ string, text []byte) { all = append(all, string(text)) })
	text := strings.Join(all, " ")
	for _, want := range []string{"one-text", "one-bytes", "two-text", "two-bytes", "any-bytes", "key", "table-text", "list-bytes", "tab"} {
		require.Contains(t, all, want, text)
	}
	require.NotContains(t, text, hidden)
}

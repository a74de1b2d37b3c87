package asidecodec_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidecodec"
)

func ExampleSonic() {
	c, err := aside.New(aside.Options{JSON: asidecodec.Sonic()})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	models := aside.Policy{Name: "models", Category: "models", TTL: time.Hour, CloneOnRead: true}
	catalogue, err := aside.GetOrLoad(context.Background(), c, models.Key("all"), func(context.Context) ([]string, error) {
		return []string{"a large list"}, nil
	})
	fmt.Println(catalogue, err)
	// Output: [a large list] <nil>
}

// A text of lists in lists is an error, and does not end the process by an overflow of its stack.
func TestSonicBoundsTheNesting(t *testing.T) {
	t.Parallel()
	type node struct{ Next *node }
	const levels = 5_000_000
	unmarshal := asidecodec.Sonic().Unmarshal
	lists := strings.Repeat("[", levels) + strings.Repeat("]", levels)
	require.Error(t, unmarshal([]byte(lists), new(any)))
	require.Error(t, unmarshal([]byte(`{"unknown":`+lists+`}`), new(node)))
	require.Error(t, unmarshal([]byte(strings.Repeat(`{"Next":`, levels)+"null"+strings.Repeat("}", levels)), new(node)))
}

// A decoded string must not keep the whole text in memory.
func TestStringsOfSonicShareNoMemoryWithTheText(t *testing.T) {
	t.Parallel()
	text := []byte(`{"Name":"a name","Map":{"key":["v"]},"Any":{"k":["x","with \" an escape"]},"Raw":{"a": "b"},"Number":1234567,"Bytes":"YWJj","Address":"192.0.2.1","Keys":{"192.0.2.2":1}}`)
	var v struct {
		Name    string
		Map     map[string][]string
		Any     any
		Raw     json.RawMessage
		Number  json.Number
		Bytes   []byte
		Address *netip.Addr
		Keys    map[netip.Addr]int
	}
	require.NoError(t, asidecodec.Sonic().Unmarshal(text, &v))
	for i := range text {
		text[i] = '#'
	}
	require.Equal(t, "a name", v.Name)
	require.Equal(t, map[string][]string{"key": {"v"}}, v.Map)
	require.Equal(t, map[string]any{"k": []any{"x", `with " an escape`}}, v.Any)
	require.Equal(t, `{"a": "b"}`, string(v.Raw))
	require.Equal(t, json.Number("1234567"), v.Number)
	require.Equal(t, "abc", string(v.Bytes))
	require.Equal(t, "192.0.2.1", v.Address.String())
	require.Equal(t, map[netip.Addr]int{netip.MustParseAddr("192.0.2.2"): 1}, v.Keys)
}

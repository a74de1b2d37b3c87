package wire

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
)

// What folds alike is what encoding/json takes for a field's name.
func TestNamesFoldAsEncodingJSONFoldsThem(t *testing.T) {
	t.Parallel()
	for _, names := range [][2]string{{"items", "ITEMS"}, {"items", "itemſ"}, {"ITEMS", "itemſ"}, {"kind", "\u212aIND"}, {"straße", "STRAẞE"}, {"σ", "ς"}, {"Σ", "ς"}, {"é", "É"}, {"a_1", "A_1"}, {"i", "ı"}, {"a", "b"}, {"é", "e"}} {
		for _, name := range names {
			require.Equal(t, taken(t, names[0], name), fold(names[0]) == fold(name), "%q %q", names[0], name)
			require.Equal(t, taken(t, names[1], name), fold(names[1]) == fold(name), "%q %q", names[1], name)
		}
	}
}

// taken reports whether encoding/json decodes a member of a name into a field of another one.
func taken(t *testing.T, field, name string) bool {
	v := structOf(`json:"` + field + `"`)
	text, err := json.Marshal(map[string]int{name: 1})
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, v.Addr().Interface()))
	return !v.IsZero()
}

func structOf(tag string) reflect.Value {
	return reflect.New(reflect.StructOf([]reflect.StructField{{Name: "F", Type: reflect.TypeFor[int](), Tag: reflect.StructTag(tag)}})).Elem()
}

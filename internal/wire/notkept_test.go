package wire

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNotKeptNamesTheFirstFieldThatDoesNotComeBack(t *testing.T) {
	t.Parallel()
	type inner struct {
		Kept   string
		hidden int
	}
	type outer struct {
		When   time.Time
		List   []inner
		Secret string `json:"-"`
	}
	look := func(v any) (field, what string, some bool) {
		payload, err := JSON.Marshal(v)
		require.NoError(t, err)
		return NotKept(JSON, payload, v)
	}
	_, _, some := look(&outer{When: time.Now(), Secret: "left out by its author"})
	require.False(t, some)
	field, what, some := look(&outer{List: []inner{{"a", 1}}})
	require.True(t, some)
	require.Equal(t, ".List[0].hidden", field)
	require.Equal(t, "it is not exported, and comes back empty", what)

	payload, err := JSON.Marshal(&outer{List: []inner{{Kept: "a"}}})
	require.NoError(t, err)
	type one struct{ Kept string }
	field, what, some = NotKept(JSON, []byte(`{"Kept":"b"}`), &one{"a"})
	require.True(t, some)
	require.Equal(t, ".Kept", field)
	require.Equal(t, "it comes back changed", what)
	_, what, some = NotKept(JSON, payload[:3], &outer{})
	require.True(t, some)
	require.Equal(t, "it cannot be decoded", what)
}

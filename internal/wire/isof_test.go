package wire

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhichTypeAPayloadIsOf(t *testing.T) {
	t.Parallel()
	type narrow struct{ ID int }
	type alike struct{ ID int64 }
	type wide struct{ ID, Price int }
	type other struct{ ID, Cost int }
	for _, codec := range []Codec{JSON, CBOR} {
		payload, err := Marshal(codec, &narrow{1})
		require.NoError(t, err)
		require.True(t, IsOf(codec, payload, reflect.TypeFor[narrow]()))
		require.True(t, IsOf(codec, payload, reflect.TypeFor[alike]()), "integers of other sizes are one type")
		require.False(t, IsOf(codec, payload, reflect.TypeFor[wide]()))
		require.False(t, IsOf(codec, nil, reflect.TypeFor[wide]()))

		covers := func(of, other any) bool { return Covers(codec, reflect.TypeOf(of), reflect.TypeOf(other)) }
		require.True(t, covers(wide{}, narrow{}))
		require.True(t, covers(narrow{}, alike{}))
		require.False(t, covers(narrow{}, wide{}))
		require.False(t, covers(wide{}, other{}))
	}
	require.False(t, IsOf(JSON, []byte(`{"ID":1}`), reflect.TypeFor[narrow]()), "nothing tells")
	require.False(t, IsOf(Raw, []byte("text"), reflect.TypeFor[string]()))
	require.True(t, Covers(Raw, reflect.TypeFor[string](), reflect.TypeFor[[]byte]()))
}

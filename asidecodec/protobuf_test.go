package asidecodec_test

import (
	"context"
	"fmt"
	"log"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidecodec"
)

func ExampleProtobuf() {
	c, err := aside.New(aside.Options{}) // with Options.Redis, the codec encodes what Redis stores
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	releases := aside.Policy{Name: "releases", Category: "releases", TTL: time.Hour, Codec: asidecodec.Protobuf(), CloneOnRead: true}
	at, err := aside.GetOrLoad(context.Background(), c, releases.Key("v1"), func(context.Context) (*timestamppb.Timestamp, error) {
		return timestamppb.New(time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)), nil
	})
	fmt.Println(at.AsTime(), err)
	// Output: 2026-07-01 00:00:00 +0000 UTC <nil>
}

func ExampleCheckProtobuf() {
	fmt.Println(asidecodec.CheckProtobuf[*timestamppb.Timestamp]())
	fmt.Println(asidecodec.CheckProtobuf[string]())
	// Output:
	// <nil>
	// asidecodec: string is not a pointer to a protobuf message: use another codec, or a message that has the value as a field
}

// reread encodes a value and decodes it.
func reread[T any](t *testing.T, c aside.Codec, v T) T {
	t.Helper()
	data, err := c.Marshal(&v)
	require.NoError(t, err)
	var got T
	require.NoError(t, c.Unmarshal(data, &got))
	return got
}

func structOf(t testing.TB, fields map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(fields)
	require.NoError(t, err)
	return s
}

func TestProtobufKeepsMessages(t *testing.T) {
	t.Parallel()
	c := asidecodec.Protobuf()
	require.Equal(t, "protobuf", c.Name())
	equal := func(want, got proto.Message) {
		t.Helper()
		require.True(t, proto.Equal(want, got), "%v, decoded as %v", want, got)
	}
	at := timestamppb.New(time.Unix(1, 2))
	equal(at, reread(t, c, at))
	empty := &timestamppb.Timestamp{}
	equal(empty, reread(t, c, empty))
	s := structOf(t, map[string]any{"a": 1.5, "b": []any{"x", nil, map[string]any{"c": true}}, "nan": math.NaN()})
	equal(s, reread(t, c, s))
	old := &descriptorpb.FieldDescriptorProto{Name: proto.String("proto2"), Number: proto.Int32(0)} // present, and zero
	equal(old, reread(t, c, old))
	require.Nil(t, reread[*timestamppb.Timestamp](t, c, nil), "a nil pointer stays nil")
}

// A message of a newer build has fields that this one does not know.
func TestProtobufKeepsUnknownFields(t *testing.T) {
	t.Parallel()
	m := wrapperspb.String("known")
	m.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 900, protowire.BytesType), "unknown"))
	got := reread(t, asidecodec.Protobuf(), m)
	require.Equal(t, m.ProtoReflect().GetUnknown(), got.ProtoReflect().GetUnknown())
	require.Equal(t, "known", got.GetValue())
}

func TestProtobufEncodesEqualMessagesAlike(t *testing.T) {
	t.Parallel()
	c, fields := asidecodec.Protobuf(), map[string]any{}
	for i := range 50 {
		fields[fmt.Sprint(i)] = float64(i)
	}
	a := structOf(t, fields)
	want, err := c.Marshal(&a)
	require.NoError(t, err)
	for range 20 {
		b := proto.CloneOf(a)
		got, err := c.Marshal(&b)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

type (
	embedsMessage struct {
		*timestamppb.Timestamp
		Beside string
	}
	embedsInterface struct{ proto.Message }
)

func TestProtobufRefusesOtherTypes(t *testing.T) {
	t.Parallel()
	const (
		other    = "is not a pointer to a protobuf message"
		embedded = "is not a generated message"
	)
	refused := func(err error, v any, why string) {
		t.Helper()
		require.ErrorContains(t, err, why)
		c := asidecodec.Protobuf()
		_, failed := c.Marshal(v)
		require.EqualError(t, failed, err.Error(), "Marshal says the same")
		require.EqualError(t, c.Unmarshal([]byte("any bytes"), v), err.Error(), "Unmarshal says the same")
	}
	refused(asidecodec.CheckProtobuf[string](), new(string), other)
	refused(asidecodec.CheckProtobuf[[]*timestamppb.Timestamp](), new([]*timestamppb.Timestamp), other)
	refused(asidecodec.CheckProtobuf[**timestamppb.Timestamp](), new(**timestamppb.Timestamp), other)
	refused(asidecodec.CheckProtobuf[timestamppb.Timestamp](), new(timestamppb.Timestamp), "use *timestamppb.Timestamp")
	refused(asidecodec.CheckProtobuf[proto.Message](), new(proto.Message), "is an interface")
	refused(asidecodec.CheckProtobuf[*embedsMessage](), new(*embedsMessage), embedded)
	refused(asidecodec.CheckProtobuf[*embedsInterface](), new(*embedsInterface), embedded)
	refused(asidecodec.CheckProtobuf[*dynamicpb.Message](), new(*dynamicpb.Message), embedded)

	c := asidecodec.Protobuf()
	for _, v := range []any{nil, 1, (**timestamppb.Timestamp)(nil)} {
		_, err := c.Marshal(v)
		require.ErrorContains(t, err, "is not a pointer to a value")
		require.ErrorContains(t, c.Unmarshal([]byte("any bytes"), v), "is not a pointer to a value")
	}
}

func TestProtobufRefusesMessagesThatWouldChange(t *testing.T) {
	t.Parallel()
	c := asidecodec.Protobuf()
	text := wrapperspb.String("caf\xe9")
	_, err := c.Marshal(&text)
	require.ErrorContains(t, err, "UTF-8")
	require.NotContains(t, err.Error(), "caf")
	part := &descriptorpb.UninterpretedOption_NamePart{}
	_, err = c.Marshal(&part)
	require.ErrorContains(t, err, "required field")

	// Both have the fields 1 and 2 of the same types, so either would be decoded as the other.
	at, d := timestamppb.New(time.Unix(1, 2)), new(durationpb.Duration)
	data, err := c.Marshal(&at)
	require.NoError(t, err)
	require.ErrorContains(t, c.Unmarshal(data, &d), "not a google.protobuf.Duration: another message was stored")
	require.Zero(t, d.GetSeconds(), "the value is left as it was")
	got := new(timestamppb.Timestamp)
	require.ErrorContains(t, c.Unmarshal(data[:3], &got), "too short")
	require.ErrorContains(t, c.Unmarshal(data[:len(data)-1], &got), "proto")
	require.Zero(t, got.GetSeconds(), "the value is left as it was")
}

// nested returns a list in a list and so on, which has as many levels.
func nested(levels int) *structpb.Value {
	v := structpb.NewNullValue()
	for range (levels - 1) / 2 {
		v = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{v}})
	}
	return v
}

func TestProtobufBoundsTheNesting(t *testing.T) {
	t.Parallel()
	c := asidecodec.Protobuf()
	v := nested(9_999)
	require.NotNil(t, reread(t, c, v), "what is encoded is decoded")
	v = nested(10_001)
	_, err := c.Marshal(&v)
	require.ErrorContains(t, err, "has more than 10000 levels")

	list := &structpb.ListValue{}
	list.Values = []*structpb.Value{structpb.NewNullValue(), structpb.NewListValue(list)}
	_, err = c.Marshal(&list)
	require.ErrorContains(t, err, "or contains itself")
	s := &structpb.Struct{}
	s.Fields = map[string]*structpb.Value{"a": structpb.NewStructValue(s)}
	_, err = c.Marshal(&s)
	require.ErrorContains(t, err, "or contains itself")
}

// The levels of a text in Redis are bounded too.
func TestProtobufBoundsTheNestingThatItReads(t *testing.T) {
	t.Parallel()
	c, v := asidecodec.Protobuf(), nested(3)
	data, err := c.Marshal(&v)
	require.NoError(t, err)
	var item []byte // from its end
	for range 5_100 {
		for _, field := range []byte{0x0a, 0x32} { // ListValue.values, Value.list_value
			length := protowire.AppendVarint(nil, uint64(len(item)))
			slices.Reverse(length)
			item = append(append(item, length...), field)
		}
	}
	slices.Reverse(item)
	require.ErrorContains(t, c.Unmarshal(append(data[:4:4], item...), &v), "recursion")
}

func FuzzProtobufUnmarshal(f *testing.F) {
	c := asidecodec.Protobuf()
	for _, v := range []*structpb.Value{nil, {}, nested(9), structpb.NewStructValue(structOf(f, map[string]any{"a": 1, "b": "text"}))} {
		data, err := c.Marshal(&v)
		require.NoError(f, err)
		f.Add(data[4:])
	}
	var none *structpb.Value
	head, err := c.Marshal(&none)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, item []byte) {
		var v *structpb.Value
		data := append(head[:4:4], item...)
		before := string(data)
		err := c.Unmarshal(data, &v)
		require.Equal(t, before, string(data), "the data is not changed")
		if err != nil {
			require.Nil(t, v)
			return
		}
		require.True(t, proto.Equal(v, reread(t, c, v)))
	})
}

// MaxBytes bounds messages in memory too.
func TestTheSizeOfAMessageInMemoryIsCounted(t *testing.T) {
	t.Parallel()
	c, err := aside.New(aside.Options{MaxBytes: 64 << 20})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	p := aside.Policy{Category: "messages", TTL: time.Hour, Codec: asidecodec.Protobuf()}
	require.NoError(t, aside.Set(t.Context(), c, p.Key(1), wrapperspb.Bytes(make([]byte, 1<<20))))
	require.GreaterOrEqual(t, c.Metrics().InMemory.Bytes, int64(1<<20))
}

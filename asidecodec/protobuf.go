package asidecodec

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"reflect"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/gatewayz/aside"
)

// Protobuf returns a codec for protobuf messages, with the Name "protobuf". The values of its policy are pointers to generated messages, such as
// *pb.User: it refuses every other type at its first value, and CheckProtobuf refuses it earlier.
//
// A decoded value equals the encoded one by proto.Equal. Unknown fields are kept, and a nil pointer stays nil. Equal messages have the same bytes
// in one build of a program. A stored value has a hash of the message's full name before the message, so a value of another message is a miss.
// Marshal refuses messages of more than 10,000 levels, text that is not UTF-8, and required fields that are not set.
func Protobuf() aside.Codec { return protobufCodec{} }

// CheckProtobuf returns an error if Protobuf refuses the values of type T, for use in a test or at the start of a program.
func CheckProtobuf[T any]() error {
	_, err := messageTypeOf(reflect.TypeFor[T]())
	return err
}

type protobufCodec struct{}

func (protobufCodec) Name() string { return "protobuf" }

const (
	nameBytes = 4      // the hash of the message's full name
	noMessage = "\x00" // a nil pointer: no message has these bytes, because no field has the number 0

	mostLevels = protowire.DefaultRecursionLimit // proto.Unmarshal refuses more
)

func (protobufCodec) Marshal(v any) ([]byte, error) {
	value, t, err := pointed(v)
	if err != nil {
		return nil, err
	}
	head := binary.BigEndian.AppendUint32(nil, t.hash)
	if value.IsNil() {
		return append(head, noMessage...), nil
	}
	m := value.Interface().(proto.Message)
	if t.recursive && deeper(m.ProtoReflect(), mostLevels) {
		return nil, refusal(fmt.Sprintf("%s has more than %d levels, or contains itself", value.Type(), mostLevels))
	}
	data, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(head, m)
	if err != nil {
		return nil, refusal(err.Error()) // it names fields, and quotes no values
	}
	return data, nil
}

func (protobufCodec) Unmarshal(data []byte, v any) error {
	value, t, err := pointed(v)
	switch {
	case err != nil:
		return err
	case len(data) < nameBytes:
		return refusal("not written by this codec: it is too short")
	case binary.BigEndian.Uint32(data) != t.hash:
		return refusal(fmt.Sprintf("not a %s: another message was stored", t.name))
	}
	if data = data[nameBytes:]; string(data) == noMessage {
		value.SetZero()
		return nil
	}
	m := reflect.New(value.Type().Elem())
	if err := proto.Unmarshal(data, m.Interface().(proto.Message)); err != nil {
		return refusal(err.Error())
	}
	value.Set(m)
	return nil
}

// pointed returns the value that v points to, which is a pointer to a message.
func pointed(v any) (reflect.Value, *messageType, error) {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return rv, nil, refusal(fmt.Sprintf("%T is not a pointer to a value", v))
	}
	t, err := messageTypeOf(rv.Type().Elem())
	return rv.Elem(), t, err
}

// A messageType is what the codec knows of a type of values.
type messageType struct {
	name      protoreflect.FullName
	hash      uint32
	recursive bool // a message can contain another one of its type
	err       error
}

var messageTypes sync.Map // reflect.Type -> *messageType

func messageTypeOf(t reflect.Type) (*messageType, error) {
	known, ok := messageTypes.Load(t)
	if !ok {
		known, _ = messageTypes.LoadOrStore(t, inspect(t))
	}
	m := known.(*messageType)
	return m, m.err
}

func inspect(t reflect.Type) *messageType {
	is := reflect.TypeFor[proto.Message]()
	switch {
	case t.Kind() == reflect.Interface:
		return &messageType{err: refusal(fmt.Sprintf("%s is an interface: use a pointer to one message type", t))}
	case t.Kind() == reflect.Struct && reflect.PointerTo(t).Implements(is):
		return &messageType{err: refusal(fmt.Sprintf("%s is a message that must not be copied: use *%[1]s", t))}
	case t.Kind() != reflect.Pointer || !t.Implements(is):
		return &messageType{err: refusal(fmt.Sprintf("%s is not a pointer to a protobuf message: use another codec, or a message that has the value as a field", t))}
	}
	d := descriptorOf(t)
	if d == nil {
		return &messageType{err: refusal(fmt.Sprintf("%s is not a generated message: a struct that embeds one would lose its other fields. Use a pointer to the message itself", t))}
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(d.FullName()))
	return &messageType{name: d.FullName(), hash: h.Sum32(), recursive: endless(d, map[protoreflect.FullName]bool{})}
}

// descriptorOf returns nil if the methods of a type are not those of a generated message: those of an embedded message are about that message alone, and
// dynamic messages do not know their fields before they are made.
func descriptorOf(t reflect.Type) (d protoreflect.MessageDescriptor) {
	defer func() {
		if recover() != nil { // a nil interface is embedded
			d = nil
		}
	}()
	m := reflect.New(t.Elem()).Interface().(proto.Message).ProtoReflect()
	if reflect.TypeOf(m.Interface()) != t || m.Descriptor() == nil || m.Descriptor().FullName() == "" {
		return nil
	}
	return m.Descriptor()
}

// endless reports whether messages of a type can be nested without end. open has the types around it.
func endless(d protoreflect.MessageDescriptor, open map[protoreflect.FullName]bool) bool {
	if open[d.FullName()] || d.ExtensionRanges().Len() > 0 { // an extension can be any message
		return true
	}
	open[d.FullName()] = true
	defer delete(open, d.FullName())
	for i := range d.Fields().Len() {
		if inner := d.Fields().Get(i).Message(); inner != nil && endless(inner, open) {
			return true
		}
	}
	return false
}

// deeper reports whether a message has more than so many levels. The library would encode a message that contains itself until the stack overflows.
func deeper(m protoreflect.Message, levels int) (yes bool) {
	if levels--; levels < 0 {
		return true
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					yes = deeper(v.Message(), levels-1) // the entry is a level too
					return !yes
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && !yes; i++ {
				yes = deeper(v.List().Get(i).Message(), levels)
			}
		default:
			yes = deeper(v.Message(), levels)
		}
		return !yes
	})
	return yes
}

package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"
	"runtime"
	"runtime/debug"

	"github.com/shamaton/msgpack/v3"

	"github.com/gatewayz/aside/internal/causes"
)

// Codec turns a value into the payload of an entry and back. It is called from many goroutines at once.
type Codec interface {
	// Name identifies the format in stored entries: two builds that use the same name must read each other's payloads, so
	// a codec whose format changes needs a new name. "json", "msgpack" and "raw" are taken.
	Name() string
	// Marshal may return memory that v holds: it is copied before the load that made v is forgotten.
	Marshal(v any) ([]byte, error)
	// Unmarshal decodes into v, a pointer to a zero value. Values are shared between readers and data is never changed or
	// used again, so *v may keep parts of it; Unmarshal must not write to it.
	Unmarshal(data []byte, v any) error
}

var (
	// JSON is encoding/json: readable in redis-cli, and it accepts values of an older or newer struct. Nesting is bounded
	// by encoding/json at 10,000 levels.
	JSON Codec = jsonCodec{}

	// MessagePack is smaller and quicker to decode than JSON; see https://github.com/msgpack/msgpack/blob/master/spec.md.
	// Structs are maps, with names from the tag `msgpack:"name"`. Payloads nested deeper than 1,000 levels are refused.
	// Decoding into an interface gives map[any]any and the narrowest integer type. A time keeps its nanoseconds, not its
	// zone. Maps are written in a random order, so equal values may have different bytes. Byte slices of the result lie
	// inside the payload. A value that contains itself has no MessagePack form: to encode one overflows the stack, which
	// ends the process.
	MessagePack Codec = msgpackCodec{}

	// Raw stores bytes and text as they are: []byte, string and types that are defined as one of them, such as
	// json.RawMessage, or pointers to these. Marshal does not copy bytes, so they must not be changed after they were
	// handed over; decoded bytes lie inside the payload with their capacity clipped. An empty slice and a nil one are
	// both stored as nothing and come back empty, not nil.
	Raw Codec = rawCodec{}
)

// ID returns the 32 bit FNV-1a hash of the codec's name, which stands for it in an envelope.
func ID(c Codec) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(c.Name()))
	return h.Sum32()
}

var builtin = map[uint32]Codec{ID(JSON): JSON, ID(MessagePack): MessagePack, ID(Raw): Raw}

// Builtin returns the codec of this package that has this ID.
func Builtin(id uint32) (Codec, bool) {
	c, ok := builtin[id]
	return c, ok
}

// CodecError is a failure of Marshal or Unmarshal. Its text names the codec, the Go type and what a codec of this package
// found wrong. Any other cause appears by its type alone, because its text may quote the cached value, and that may be a
// secret. Unwrap returns the cause.
type CodecError struct {
	Codec string // name of the codec
	Op    string // "encode" or "decode"
	Type  string // Go type of the value
	Stack []byte // where the codec panicked; nil if it did not
	Cause error  // nil if the codec panicked with something that is not an error
	text  string
}

// Error returns one line without any part of the value.
func (e *CodecError) Error() string {
	return fmt.Sprintf("wire: codec %q cannot %s %s: %s", e.Codec, e.Op, e.Type, e.text)
}

// Unwrap returns the cause, whose text may quote the value.
func (e *CodecError) Unwrap() error { return e.Cause }

// Marshal encodes v. A failure, and a panic of the codec or of a method of v, comes back as a *CodecError;
// runtime.Goexit goes on.
func Marshal(c Codec, v any) ([]byte, error) {
	var data []byte
	err := guard(c, "encode", v, func() (err error) {
		data, err = c.Marshal(v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Unmarshal decodes data into v, a pointer to a zero value. A failure, and a panic of the codec or of a method of v, comes
// back as a *CodecError, and what v points to may then be filled in part; runtime.Goexit goes on.
func Unmarshal(c Codec, data []byte, v any) error {
	return guard(c, "decode", v, func() error { return c.Unmarshal(data, v) })
}

// errEndless stands for an error that is its own cause: whoever looked at it would never come back.
var errEndless = errors.New("an error whose causes do not end")

func ends(err error) (yes bool) {
	defer func() { _ = recover() }() // of its own methods
	return causes.End(err)
}

func guard(c Codec, op string, v any, call func() error) (err error) {
	var name string
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		e := &CodecError{Codec: name, Op: op, Type: fmt.Sprintf("%T", v), Stack: debug.Stack()}
		if e.Cause, _ = p.(error); !ends(e.Cause) {
			e.Cause = errEndless
		}
		e.text = fmt.Sprintf("panic of type %T", p)
		if r, ok := p.(runtime.Error); ok {
			// The runtime's own texts hold types and indexes, no contents.
			e.text = "panic: " + r.Error()
		}
		err = e
	}()
	name = c.Name()
	if cause := call(); cause != nil {
		if !ends(cause) {
			cause = errEndless
		}
		return &CodecError{Codec: name, Op: op, Type: fmt.Sprintf("%T", v), Cause: cause, text: reason(cause)}
	}
	return nil
}

// reason says what is wrong without quoting the value: encoding/json puts numbers and letters of its input into its
// messages, and a type's own methods may put anything there.
func reason(err error) string {
	var (
		syntax      *json.SyntaxError
		mismatch    *json.UnmarshalTypeError
		unsupported *json.UnsupportedTypeError
	)
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("malformed JSON at byte %d", syntax.Offset)
	case errors.As(err, &mismatch):
		return fmt.Sprintf("JSON at byte %d does not fit %s, field %q", mismatch.Offset, mismatch.Type, mismatch.Field)
	case errors.As(err, &unsupported):
		return fmt.Sprintf("JSON has no form for %s", unsupported.Type)
	case errors.Is(err, ErrCorrupt), errors.Is(err, errNotRaw), errors.Is(err, msgpack.Error):
		return err.Error()
	}
	return fmt.Sprintf("error of type %T", err)
}

type jsonCodec struct{}

func (jsonCodec) Name() string                       { return "json" }
func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

type rawCodec struct{}

var errNotRaw = errors.New("neither bytes nor a string: use JSON or MessagePack")

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return b, nil
	}
	rv := reflect.ValueOf(v)
	if rv.Kind() == reflect.Pointer {
		rv = rv.Elem()
	}
	switch {
	case isBytes(rv):
		return rv.Bytes(), nil
	case rv.Kind() == reflect.String:
		return []byte(rv.String()), nil
	}
	return nil, fmt.Errorf("%T is %w", v, errNotRaw)
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	data = data[:len(data):len(data)]
	if p, ok := v.(*[]byte); ok && p != nil {
		*p = data
		return nil
	}
	rv := reflect.ValueOf(v)
	if rv.Kind() == reflect.Pointer {
		rv = rv.Elem()
		switch {
		case isBytes(rv):
			rv.SetBytes(data)
			return nil
		case rv.Kind() == reflect.String:
			rv.SetString(string(data))
			return nil
		}
	}
	return fmt.Errorf("%T is no pointer to bytes or a string, %w", v, errNotRaw)
}

// isBytes is false for the zero Value, which is what a nil pointer leads to.
func isBytes(rv reflect.Value) bool {
	return rv.Kind() == reflect.Slice && rv.Type().Elem() == reflect.TypeFor[byte]()
}

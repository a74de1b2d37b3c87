package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"
	"runtime"
	"runtime/debug"

	"github.com/gatewayz/aside/internal/causes"
)

// Codec turns a value into the payload of an entry and back. It is called from many goroutines at once.
type Codec interface {
	// Name identifies the format in stored entries. Two builds that use the same name must read each other's payloads, so a codec
	// whose format changes needs a new name. "json", "cbor" and "raw" are taken.
	Name() string
	// Marshal may return memory that v holds. The cache copies it before the load that made v ends.
	Marshal(v any) ([]byte, error)
	// Unmarshal decodes into v, a pointer to a zero value. The cache never changes data or uses it again, so *v may keep parts of it.
	// Values are shared between readers, so Unmarshal must not write to data.
	Unmarshal(data []byte, v any) error
}

var (
	// JSON is encoding/json. Its payloads are readable in redis-cli. encoding/json bounds the nesting at 10,000 levels. JSON leaves out
	// unexported fields and fields with the tag "-". It refuses any other value that decoding would change, with a [*LossError].
	JSON Codec = jsonCodec{}

	// CBOR is RFC 8949. It decodes faster than JSON, and is smaller if it is not compressed. Fields have the names of their `cbor` tags,
	// and without these the names of their `json` tags. Strings and byte slices are kept whatever their content, and so are NaN and
	// infinities. Maps are written in any order, so equal values may have different bytes. CBOR refuses payloads and values that are
	// nested deeper than 1,000 levels. It refuses every type that would lose something, including types with unexported fields, unless
	// these have the tag `cbor:"-"` or are locks: sync.Mutex, RWMutex, Once and WaitGroup. Decoded values share no memory with
	// the payload.
	CBOR Codec = cborCodec{}

	// Raw stores bytes and text unchanged: []byte, string and types that are defined as one of them, such as json.RawMessage, or
	// pointers to these. Marshal does not copy bytes, so the caller must not change them afterwards. Decoded bytes are a copy. Bytes
	// of 1 MiB and more lie inside the payload instead, with their capacity clipped. A nil slice comes back nil, and an empty
	// slice empty.
	Raw Codec = rawCodec{}
)

// ID returns the 32 bit FNV-1a hash of the codec's name. It identifies the codec in an envelope.
func ID(c Codec) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(c.Name()))
	return h.Sum32()
}

var builtin = map[uint32]Codec{ID(JSON): JSON, ID(CBOR): CBOR, ID(Raw): Raw}

// Builtin returns the codec of this package with this ID.
func Builtin(id uint32) (Codec, bool) {
	c, ok := builtin[id]
	return c, ok
}

// IsExclusive reports whether a codec of a policy does not accept values of other codecs: it has the method Exclusive, and that returns true.
func IsExclusive(c Codec) bool {
	e, ok := c.(interface{ Exclusive() bool })
	return ok && e.Exclusive()
}

// CodecError is a failure of Marshal or Unmarshal. Its text names the codec, the Go type and the fault that a codec of this package
// found, or that a cause with the method NoValue describes. It names any other cause by its type only: the text of such a cause may quote the
// cached value, and the value may be a secret.
// Unwrap returns the cause.
type CodecError struct {
	Codec string // name of the codec
	Op    string // "encode" or "decode"
	Type  string // Go type of the value
	Stack []byte // where the codec panicked; nil if it did not
	Cause error  // nil if the codec panicked with a value that is not an error
	text  string
}

// Error returns one line without any part of the value.
func (e *CodecError) Error() string {
	return fmt.Sprintf("codec %q cannot %s %s: %s", e.Codec, e.Op, e.Type, e.text)
}

// Unwrap returns the cause. The text of the cause may quote the value.
func (e *CodecError) Unwrap() error { return e.Cause }

// Marshal encodes v. It returns a *CodecError for a failure, and for a panic of the codec or of a method of v. It does not stop
// runtime.Goexit.
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

// Marshal is the function Marshal with a bound for values of recursive types. It stops when the encoding must exceed MaxValue. A value
// in which very many paths lead to the same node would otherwise take far longer.
func (l Limits) Marshal(c Codec, v any) ([]byte, error) {
	switch own := l.Own(c).(type) {
	case jsonCodec:
		own.most = l.MaxValue
		c = own
	case cborCodec:
		c = cborCodec{l.MaxValue}
	}
	return Marshal(c, v)
}

// Unmarshal is the function Unmarshal, with the functions that are to decode JSON.
func (l Limits) Unmarshal(c Codec, data []byte, v any) error { return Unmarshal(l.Own(c), data, v) }

// Own returns a codec, and for JSON the one with the functions that are to encode and decode it.
func (l Limits) Own(c Codec) Codec {
	if _, ok := c.(jsonCodec); ok && l.JSON != nil {
		return jsonCodec{by: l.JSON}
	}
	return c
}

// Unmarshal decodes data into v, a pointer to a zero value. It returns a *CodecError for a failure, and for a panic of the codec or of a
// method of v. *v may then be filled in part. Unmarshal does not stop runtime.Goexit.
func Unmarshal(c Codec, data []byte, v any) error {
	return guard(c, "decode", v, func() error { return c.Unmarshal(data, v) })
}

// errEndless replaces an error that is its own cause. A caller that followed the causes of such an error would never return.
var errEndless = errors.New("an error whose causes do not end")

// ends reports whether the causes of err end.
func ends(err error) (yes bool) {
	defer func() { _ = recover() }() // err's own methods may panic
	return causes.End(err)
}

// guard calls a codec and turns its error or panic into a *CodecError.
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
			// The texts of the runtime's own errors contain types and indexes, and no contents of values.
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

// reason describes an error without quoting the value. encoding/json puts numbers and letters of its input into its messages, and a
// type's own methods may put any text there.
func reason(err error) string {
	var (
		syntax      *json.SyntaxError
		mismatch    *json.UnmarshalTypeError
		unsupported *json.UnsupportedTypeError
		loss        *LossError
		harmless    interface {
			error
			NoValue()
		}
	)
	if text, ok := cborReason(err); ok {
		return text
	}
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("malformed JSON at byte %d", syntax.Offset)
	case errors.As(err, &mismatch):
		return fmt.Sprintf("JSON at byte %d does not fit %s, field %q", mismatch.Offset, mismatch.Type, mismatch.Field)
	case errors.As(err, &unsupported):
		return fmt.Sprintf("JSON has no form for %s", unsupported.Type)
	case errors.As(err, &loss) && errors.Is(err, errOtherFields):
		return errOtherFields.Error() + ": " + loss.Error()
	case errors.As(err, &loss):
		return loss.Error()
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrTooLarge), errors.Is(err, errNotRaw), errors.Is(err, errNothing):
		return err.Error()
	case errors.Is(err, errOtherFields):
		return errOtherFields.Error()
	case errors.As(err, &harmless):
		return harmless.Error()
	}
	return fmt.Sprintf("error of type %T", err)
}

type rawCodec struct{}

var errNotRaw = errors.New("neither bytes nor a string: use JSON or CBOR")

func (rawCodec) Name() string { return "raw" }

// rawNil is the payload of a nil slice. Bytes that equal rawNil with any number of zeros after it are stored with one more zero.
const rawNil = "\xc1\xa5aside: nil\xf3\x9d\x0e\x1b"

// rawCopied is the length from which decoded bytes are not copied. They then keep the header and the tags of their entry in memory, which
// are not counted. That is a small part of so many bytes.
const rawCopied = 1 << 20

// resembles reports whether data is rawNil, followed by nothing but zeros.
func resembles(data []byte) bool {
	return len(data) >= len(rawNil) && string(data[:len(rawNil)]) == rawNil && len(bytes.Trim(data[len(rawNil):], "\x00")) == 0
}

func rawBytes(b []byte) []byte {
	switch {
	case b == nil:
		return []byte(rawNil)
	case resembles(b):
		return append(bytes.Clone(b), 0)
	}
	return b
}

func (rawCodec) Marshal(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return rawBytes(b), nil
	}
	rv := reflect.ValueOf(v)
	if rv.Kind() == reflect.Pointer {
		rv = rv.Elem()
	}
	switch {
	case isBytes(rv):
		return rawBytes(rv.Bytes()), nil
	case rv.Kind() == reflect.String:
		return rawBytes([]byte(rv.String())), nil
	}
	return nil, fmt.Errorf("%T is %w", v, errNotRaw)
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	rv := reflect.ValueOf(v)
	pointer := rv.Kind() == reflect.Pointer
	if pointer {
		rv = rv.Elem()
	}
	list := isBytes(rv)
	if !pointer || !list && rv.Kind() != reflect.String {
		return fmt.Errorf("%T is no pointer to bytes or a string, %w", v, errNotRaw)
	}
	null := false
	if resembles(data) {
		if null = len(data) == len(rawNil); !null {
			data = data[:len(data)-1]
		}
	}
	switch {
	case null:
		rv.SetZero()
	case !list:
		rv.SetString(string(data))
	case len(data) < rawCopied:
		rv.SetBytes(append(make([]byte, 0, len(data)), data...))
	default:
		rv.SetBytes(data[:len(data):len(data)])
	}
	return nil
}

// isBytes reports whether a value is a byte slice. It is false for the zero Value, which is the element of a nil pointer.
func isBytes(rv reflect.Value) bool {
	return rv.Kind() == reflect.Slice && rv.Type().Elem() == reflect.TypeFor[byte]()
}

// IsRaw reports whether Raw accepts values of a type.
func IsRaw(t reflect.Type) bool {
	return t.Kind() == reflect.String || t.Kind() == reflect.Slice && t.Elem() == reflect.TypeFor[byte]()
}

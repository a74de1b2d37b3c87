package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// maxNesting is far above what real values need, and far below what would fill a goroutine's stack.
const maxNesting = 1000

// A CBOR payload is a list: a hash of all fields of the type, the hashes of the single fields if they are stored, and the value.
const (
	cborHead       = "\x82\x1a"
	cborListed     = "\x83\x1a"
	cborHeadLen    = len(cborHead) + 4
	cborFieldsHead = 0x59 // bytes, with a length of two
)

func appendCBORHead(head []byte, fields []byte, print uint32) []byte {
	if fields == nil {
		return binary.BigEndian.AppendUint32(append(head, cborHead...), print)
	}
	head = binary.BigEndian.AppendUint32(append(head, cborListed...), print)
	return append(binary.BigEndian.AppendUint16(append(head, cborFieldsHead), uint16(len(fields))), fields...)
}

// cutCBOR takes a payload apart. It reports false if this package has not written it.
func cutCBOR(data []byte) (fields []byte, print uint32, item []byte, ok bool) {
	if len(data) < cborHeadLen {
		return nil, 0, nil, false
	}
	print, item = binary.BigEndian.Uint32(data[len(cborHead):]), data[cborHeadLen:]
	switch string(data[:len(cborHead)]) {
	case cborHead:
		return nil, print, item, true
	case cborListed:
		if len(item) < 3 || item[0] != cborFieldsHead {
			return nil, 0, nil, false
		}
		n := int(binary.BigEndian.Uint16(item[1:]))
		if item = item[3:]; n > len(item) {
			return nil, 0, nil, false
		}
		return item[:n], print, item[n:], true
	}
	return nil, 0, nil, false
}

var (
	cborEncoder = must(cbor.EncOptions{
		ShortestFloat:   cbor.ShortestFloat16,
		NaNConvert:      cbor.NaNConvert7e00, // a NaN is a NaN, whatever its bits
		InfConvert:      cbor.InfConvertFloat16,
		Time:            cbor.TimeRFC3339Nano,
		TimeTag:         cbor.EncTagRequired,
		OmitEmpty:       cbor.OmitEmptyGoValue,
		IndefLength:     cbor.IndefLengthForbidden,
		BinaryMarshaler: cbor.BinaryMarshalerByteString,
		TextMarshaler:   cbor.TextMarshalerTextString,
	}.UserBufferEncMode())

	cborDecoder = must(cborDecoding.DecMode())

	cborDecoding = cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		TimeTag:           cbor.DecTagRequired,
		MaxNestedLevels:   maxNesting,
		MaxArrayElements:  math.MaxInt32, // the decoder finds all elements before it makes a list, so the payload's length is the bound
		MaxMapPairs:       math.MaxInt32,
		IndefLength:       cbor.IndefLengthForbidden,
		IntDec:            cbor.IntDecConvertSignedOrFail,
		DefaultMapType:    reflect.TypeFor[map[string]any](),
		UTF8:              cbor.UTF8DecodeInvalid, // strings come back unchanged
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		BigIntDec:         cbor.BigIntDecodePointer,
		BinaryUnmarshaler: cbor.BinaryUnmarshalerByteString,
		TextUnmarshaler:   cbor.TextUnmarshalerTextString,
	}
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the library does not know an option
	}
	return v
}

var cborBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// keptBuffer is the capacity of the largest buffer that is used again.
const keptBuffer = 8 << 20

// A cborCodec refuses a value of more than most bytes, unless most is 0.
type cborCodec struct{ most int }

func (cborCodec) Name() string { return "cbor" }

func (c cborCodec) Marshal(v any) ([]byte, error) {
	pointer, typ, rv := target(v)
	if typ == nil {
		typ = reflect.TypeFor[any]()
	}
	k := keeperOf(typ, "cbor")
	if err := k.check(rv, atMost(c.most)); err != nil {
		return nil, err
	}
	buf := cborBuffers.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= keptBuffer {
			cborBuffers.Put(buf)
		}
	}()
	buf.Reset()
	buf.Write(appendCBORHead(buf.AvailableBuffer(), k.fields.stored, k.print))
	if err := cborEncoder.MarshalToBuffer(pointer, buf); err != nil {
		return nil, err
	}
	return bytes.Clone(buf.Bytes()), nil
}

func (cborCodec) Unmarshal(data []byte, v any) error {
	fields, print, item, ok := cutCBOR(data)
	if !ok {
		return fmt.Errorf("%w: no CBOR of this package", ErrCorrupt)
	}
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return cborDecoder.Unmarshal(item, v)
	}
	k := keeperOf(rv.Type().Elem(), "cbor")
	if k.refused != nil {
		return k.refused
	}
	if err := k.reads(print, fields); err != nil {
		return err
	}
	if !k.root.nullable && isNullCBOR(item) {
		return errNothing
	}
	return cborDecoder.Unmarshal(item, v)
}

// CBORAsAny decodes the payload of a value of any type into maps, lists and numbers, for a reader who does not know the type. Unmarshal refuses
// that: a value of a type that has fields would lose their order and their types. The bound on memory is that of Fits.
func (l Limits) CBORAsAny(payload []byte) (v any, err error) {
	_, _, item, ok := cutCBOR(payload)
	if !ok || !l.Fits(CBOR, reflect.TypeFor[any](), payload) {
		return nil, fmt.Errorf("%w: no CBOR of this package, or too much", ErrCorrupt)
	}
	err = cborDecoder.Unmarshal(item, &v)
	return v, err
}

// cborReason describes an error of the library without the numbers and texts of the value. The library's messages contain them.
func cborReason(err error) (string, bool) {
	var (
		mismatch    *cbor.UnmarshalTypeError
		unsupported *cbor.UnsupportedTypeError
		unknownKey  *cbor.InvalidMapKeyTypeError
		duplicate   *cbor.DupMapKeyError
		deep        *cbor.MaxNestedLevelError
		syntax      *cbor.SyntaxError
		indefinite  *cbor.IndefiniteLengthError
		extra       *cbor.ExtraneousDataError
		semantic    *cbor.SemanticError
	)
	switch {
	case errors.As(err, &mismatch):
		if mismatch.StructFieldName != "" {
			return fmt.Sprintf("CBOR %s does not fit %s, field %s", mismatch.CBORType, mismatch.GoType, mismatch.StructFieldName), true
		}
		return fmt.Sprintf("CBOR %s does not fit %s", mismatch.CBORType, mismatch.GoType), true
	case errors.As(err, &unsupported):
		return fmt.Sprintf("CBOR has no form for %s", unsupported.Type), true
	case errors.As(err, &unknownKey):
		return "CBOR with a map key that Go has no form for", true
	case errors.As(err, &duplicate):
		return "CBOR with a key that is there twice", true
	case errors.As(err, &deep), errors.As(err, &indefinite):
		return err.Error(), true
	case errors.As(err, &syntax), errors.As(err, &extra), errors.As(err, &semantic):
		return "malformed CBOR", true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "CBOR cut short", true
	}
	return "", false
}

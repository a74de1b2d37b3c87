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

// maxNesting is far above what real values need and far below what fills a goroutine's stack.
const maxNesting = 1000

// A CBOR payload is a list of two: a hash of the type's fields, and the value.
const (
	cborHead    = "\x82\x1a"
	cborHeadLen = len(cborHead) + 4
)

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

	// Of another build's payload all is compared: also numbers and keys that no value of any has.
	cborComparing = func() cbor.DecMode {
		opts := cborDecoding
		opts.IntDec, opts.DefaultMapType = cbor.IntDecConvertSignedOrBigInt, nil
		return must(opts.DecMode())
	}()

	cborDecoding = cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		TimeTag:           cbor.DecTagRequired,
		MaxNestedLevels:   maxNesting,
		MaxArrayElements:  math.MaxInt32, // each element is there before a list is made for it, so the payload's length is the bound
		MaxMapPairs:       math.MaxInt32,
		IndefLength:       cbor.IndefLengthForbidden,
		IntDec:            cbor.IntDecConvertSignedOrFail,
		DefaultMapType:    reflect.TypeFor[map[string]any](),
		UTF8:              cbor.UTF8DecodeInvalid, // strings come back as they went in
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		BigIntDec:         cbor.BigIntDecodePointer,
		BinaryUnmarshaler: cbor.BinaryUnmarshalerByteString,
		TextUnmarshaler:   cbor.TextUnmarshalerTextString,
	}
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // an option that the library does not know
	}
	return v
}

var cborBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// keptBuffer is the largest buffer that is used again.
const keptBuffer = 8 << 20

type cborCodec struct{}

func (cborCodec) Name() string { return "cbor" }

func (cborCodec) Marshal(v any) ([]byte, error) {
	pointer, typ, rv := target(v)
	if typ == nil {
		typ = reflect.TypeFor[any]()
	}
	k := keeperOf(typ, "cbor")
	if err := k.check(rv); err != nil {
		return nil, err
	}
	buf := cborBuffers.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= keptBuffer {
			cborBuffers.Put(buf)
		}
	}()
	buf.Reset()
	buf.WriteString(cborHead)
	buf.Write(binary.BigEndian.AppendUint32(buf.AvailableBuffer(), k.print))
	if err := cborEncoder.MarshalToBuffer(pointer, buf); err != nil {
		return nil, err
	}
	return bytes.Clone(buf.Bytes()), nil
}

func (cborCodec) Unmarshal(data []byte, v any) error {
	if len(data) < cborHeadLen || string(data[:len(cborHead)]) != cborHead {
		return fmt.Errorf("%w: no CBOR of this package", ErrCorrupt)
	}
	print, item := binary.BigEndian.Uint32(data[len(cborHead):]), data[cborHeadLen:]
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return cborDecoder.Unmarshal(item, v)
	}
	k := keeperOf(rv.Type().Elem(), "cbor")
	if k.refused != nil {
		return k.refused
	}
	if err := cborDecoder.Unmarshal(item, v); err != nil {
		return err
	}
	if print == k.print {
		return nil
	}
	return k.compare(item, rv.Elem(), func() ([]byte, error) {
		var again bytes.Buffer
		err := cborEncoder.MarshalToBuffer(v, &again)
		return again.Bytes(), err
	}, cborComparing.Unmarshal)
}

// cborReason says what is wrong without the numbers and texts of the value, which the library's messages hold.
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

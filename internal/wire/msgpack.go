package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/shamaton/msgpack/v3"
)

type msgpackCodec struct{}

func (msgpackCodec) Name() string { return "msgpack" }

// Marshal says AsMap, because what plain Marshal writes hangs on a global that any part of the program may change.
func (msgpackCodec) Marshal(v any) ([]byte, error) { return msgpack.MarshalAsMap(v) }

func (msgpackCodec) Unmarshal(data []byte, v any) error {
	if err := checkMessagePack(data); err != nil {
		return err
	}
	return msgpack.UnmarshalAsMap(data, v)
}

// maxNesting is far above what real values need and far below what fills a goroutine's stack.
const maxNesting = 1000

// format says how an object with this first byte goes on: with a length field of so many bytes (0: none), then with a
// fixed number of bytes, then with as many bytes, or so many objects for each, as the length field says.
type format struct {
	lengthSize int
	fixed      int
	perLength  int
	never      bool
}

// formats holds the first bytes C0 to DF of the MessagePack specification; all others carry their length or value within.
// https://github.com/msgpack/msgpack/blob/master/spec.md#formats
var formats = [0x20]format{
	0x00: {},            // nil
	0x01: {never: true}, // never used
	0x02: {},            // false
	0x03: {},            // true

	0x04: {lengthSize: 1}, // bin 8
	0x05: {lengthSize: 2}, // bin 16
	0x06: {lengthSize: 4}, // bin 32

	0x07: {lengthSize: 1, fixed: 1}, // ext 8: the length does not count the type
	0x08: {lengthSize: 2, fixed: 1}, // ext 16
	0x09: {lengthSize: 4, fixed: 1}, // ext 32

	0x0a: {fixed: 4}, // float 32
	0x0b: {fixed: 8}, // float 64
	0x0c: {fixed: 1}, // uint 8
	0x0d: {fixed: 2}, // uint 16
	0x0e: {fixed: 4}, // uint 32
	0x0f: {fixed: 8}, // uint 64
	0x10: {fixed: 1}, // int 8
	0x11: {fixed: 2}, // int 16
	0x12: {fixed: 4}, // int 32
	0x13: {fixed: 8}, // int 64

	0x14: {fixed: 2},  // fixext 1, with its type
	0x15: {fixed: 3},  // fixext 2
	0x16: {fixed: 5},  // fixext 4
	0x17: {fixed: 9},  // fixext 8
	0x18: {fixed: 17}, // fixext 16

	0x19: {lengthSize: 1}, // str 8
	0x1a: {lengthSize: 2}, // str 16
	0x1b: {lengthSize: 4}, // str 32

	0x1c: {lengthSize: 2, perLength: 1}, // array 16
	0x1d: {lengthSize: 4, perLength: 1}, // array 32
	0x1e: {lengthSize: 2, perLength: 2}, // map 16
	0x1f: {lengthSize: 4, perLength: 2}, // map 32
}

// checkMessagePack returns an ErrCorrupt unless data is exactly one complete object, nested at most maxNesting levels
// deep. The decoder recurses once per level without a bound, and a stack overflow cannot be recovered: 4 MB of arrays of
// one element would end the process. It also allocates an array as long as it says it is if that many bytes follow, so
// that truncated arrays inside each other would multiply; here each object must be present to be counted.
func checkMessagePack(data []byte) error {
	// How many objects are missing in the innermost container, and in those around it from the outermost inwards. The
	// outermost of all is data, which holds one.
	missing := uint64(1)
	around := make([]uint64, 0, 32)
	pos := uint64(0)
	end := uint64(len(data))
	for {
		if missing == 0 {
			if len(around) == 0 {
				break
			}
			missing = around[len(around)-1]
			around = around[:len(around)-1]
			continue
		}
		missing--
		if pos >= end {
			return fmt.Errorf("%w: MessagePack cut short", ErrCorrupt)
		}
		c := data[pos]
		pos++

		var bytes, objects uint64
		switch {
		case c <= 0x7f || c >= 0xe0: // positive and negative fixint
		case c <= 0x8f: // fixmap
			objects = 2 * uint64(c&0x0f)
		case c <= 0x9f: // fixarray
			objects = uint64(c & 0x0f)
		case c <= 0xbf: // fixstr
			bytes = uint64(c & 0x1f)
		default:
			f := formats[c-0xc0]
			if f.never {
				return fmt.Errorf("%w: MessagePack with byte %#02x", ErrCorrupt, c)
			}
			if end-pos < uint64(f.lengthSize) {
				return fmt.Errorf("%w: MessagePack cut short", ErrCorrupt)
			}
			var length uint64
			switch f.lengthSize {
			case 1:
				length = uint64(data[pos])
			case 2:
				length = uint64(binary.BigEndian.Uint16(data[pos:]))
			case 4:
				length = uint64(binary.BigEndian.Uint32(data[pos:]))
			}
			pos += uint64(f.lengthSize)
			if f.perLength > 0 {
				objects = length * uint64(f.perLength)
			} else {
				bytes = uint64(f.fixed) + length
			}
		}
		if end-pos < bytes {
			return fmt.Errorf("%w: MessagePack cut short", ErrCorrupt)
		}
		pos += bytes
		if objects > 0 {
			if len(around) == maxNesting {
				return fmt.Errorf("%w: MessagePack nested deeper than %d levels", ErrCorrupt, maxNesting)
			}
			around = append(around, missing)
			missing = objects
		}
	}
	if pos != end {
		return fmt.Errorf("%w: bytes after the MessagePack object", ErrCorrupt)
	}
	return nil
}

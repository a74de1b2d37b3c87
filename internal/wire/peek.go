package wire

import (
	"encoding/binary"
	"fmt"
)

// PeekLen is how many bytes at the start of a value Peek needs for most values.
const PeekLen = 256

// recordsRoom is room for the records that this build knows, and for those of later builds.
const recordsRoom = 3*recordHead + MaxETag + 8 + 4 + 1024

const maxTagsLen = 2 + MaxTags*(2+MaxTagName+8) + policyLen + recordsRoom

// MaxOverhead is how many bytes a value can have beside its payload.
const MaxOverhead = HeaderLen + maxTagsLen

// Peek reads the header of a value of key from the value's first bytes. size is the length of the value with its chunks. If the bytes
// do not hold all tags and the manifest, need is how many bytes do, and Tags, Policy, ETag, StaleUntil and, in an extended chunked value,
// Payload are missing. Of most entries the checksum is over the whole value, so Peek does not check it. It checks only that the bytes
// have the form of a header and that the header is of this key.
func Peek(key string, head []byte) (h Header, size int64, need int, err error) {
	if err := recognize(head); err != nil {
		return Header{}, 0, 0, err
	}
	if len(head) < HeaderLen {
		return Header{}, 0, 0, fmt.Errorf("%w: header cut short", ErrCorrupt)
	}
	le := binary.LittleEndian
	if hashKey(key) != [keyHashLen]byte(head[keyHashOffset:]) {
		return Header{}, 0, 0, ErrWrongKey
	}
	h = fixedFields(head)
	tagsLen := uint64(le.Uint32(head[TagsLenOffset:]))
	if tagsLen > maxTagsLen {
		return Header{}, 0, 0, fmt.Errorf("%w: length of the tags", ErrCorrupt)
	}
	tags := HeaderLen + int(tagsLen)
	size = int64(tags) + int64(le.Uint32(head[storedLenOffset:]))
	need = tags + manifestLen(head[flagsOffset])
	if len(head) < need {
		if need > tags && h.Extended {
			h.Payload = Nonce{}
		}
		return h, size, need, nil
	}
	if need > tags {
		size += int64(le.Uint32(head[need-ManifestLen:]))
		if h.Extended {
			h.Payload = Nonce(head[tags:])
		}
	}
	_, err = h.parseSection(head[flagsOffset], head[HeaderLen:tags])
	return h, size, need, err
}

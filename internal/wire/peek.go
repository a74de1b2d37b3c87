package wire

import (
	"encoding/binary"
	"fmt"
	"time"
)

// PeekLen is how many bytes at the start of a value Peek needs for most values.
const PeekLen = 256

const maxTagsLen = 2 + MaxTags*(2+MaxTagName+8) + policyLen

// MaxOverhead is how many bytes a value can have beside its payload.
const MaxOverhead = HeaderLen + maxTagsLen

// Peek reads the header of a value of key from the value's first bytes. size is the length of the value with its chunks. If the bytes
// do not hold all tags and the manifest, need is how many bytes do. The checksum is over the whole value, so Peek cannot check it.
// Peek checks only that the bytes have the form of a header and that the header is of this key.
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
	h = Header{
		Codec:        le.Uint32(head[codecOffset:]),
		Negative:     head[flagsOffset]&flagNegative != 0,
		OwnTTL:       head[flagsOffset]&flagOwnTTL != 0,
		LoadStart:    int64(le.Uint64(head[loadStartOffset:])),
		FreshUntil:   int64(le.Uint64(head[freshUntilOffset:])),
		DeadUntil:    int64(le.Uint64(head[deadUntilOffset:])),
		LoadDuration: time.Duration(le.Uint32(head[loadDurationOffset:])) * time.Millisecond,
		Nonce:        Nonce(head[NonceOffset:]),
	}
	tagsLen := uint64(le.Uint32(head[TagsLenOffset:]))
	if tagsLen > maxTagsLen {
		return Header{}, 0, 0, fmt.Errorf("%w: length of the tags", ErrCorrupt)
	}
	tags := HeaderLen + int(tagsLen)
	size = int64(tags) + int64(le.Uint32(head[storedLenOffset:]))
	need = tags
	if IsChunked(head) {
		need += ManifestLen
	}
	if len(head) < need {
		return h, size, need, nil
	}
	if IsChunked(head) {
		size += int64(le.Uint32(head[tags:]))
	}
	h.Tags, h.Policy, err = parseTags(head[flagsOffset], head[HeaderLen:tags])
	return h, size, need, err
}

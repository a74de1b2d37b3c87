package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
)

// Encode returns the value to store under key, in a buffer of its own. It returns ErrTooLarge for a payload above
// lim.MaxValue, ErrTags for tags out of bounds, and ErrETag for an ETag out of bounds.
func Encode(key string, h Header, payload []byte, lim Limits) ([]byte, error) {
	if !lim.admits(uint64(len(payload))) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(payload), lim.MaxValue)
	}
	h.Extended = h.Extended || h.ETag != "" || h.StaleUntil != 0
	section, err := sectionSize(&h)
	if err != nil {
		return nil, err
	}
	head := HeaderLen + section
	b := body{codec: h.Codec, raw: uint32(len(payload))}
	var value []byte
	stored := 0
	if lim.CompressFrom >= 0 && len(payload) >= lim.CompressFrom {
		if value, stored = compressed(head, payload); stored > 0 {
			b.flags |= flagCompressed
		}
	}
	if stored == 0 {
		if value == nil {
			value = make([]byte, head+len(payload))
		}
		stored = copy(value[head:], payload)
	}
	if h.Negative {
		b.flags |= flagNegative
		b.codec = 0
		if len(payload) > 0 {
			b.flags |= flagText
		}
	}
	value = value[:head+stored]
	b.stored = uint32(stored)
	if h.Extended {
		b.crc = crc32.Checksum(value[head:], castagnoli)
	}
	putHead(key, value[:head], &h, b)
	binary.LittleEndian.PutUint32(value[crcOffset:], checksum(value))
	return value, nil
}

// A block is room for a small payload while it is compressed. s2 writes only where its worst case fits, which is longer than the payload.
type block [16 << 10]byte

var blocks = sync.Pool{New: func() any { return new(block) }}

// compressed compresses a payload into a new value, behind its head, and returns the payload's new length. It returns 0 if that is no gain; the value is
// then nil or has room for the payload. A payload that is too large for a block is compressed in place. The surplus room then lives as long as the write
// to Redis.
func compressed(head int, payload []byte) (value []byte, stored int) {
	gain := func(stored int) bool {
		return stored < len(payload) && plausible(uint64(len(payload)), uint64(stored))
	}
	most := s2.MaxEncodedLen(len(payload))
	if most > len(block{}) {
		value = make([]byte, head+most)
		if stored = len(s2.Encode(value[head:], payload)); !gain(stored) {
			stored = 0
		}
		return value, stored
	}
	room := blocks.Get().(*block)
	defer blocks.Put(room)
	packed := s2.Encode(room[:], payload)
	if !gain(len(packed)) {
		return nil, 0
	}
	value = make([]byte, head+len(packed))
	return value, copy(value[head:], packed)
}

// A body is what a header says of the payload. Restamp keeps it.
type body struct {
	flags       byte // flagCompressed, flagNegative, flagText and flagChunked
	codec       uint32
	raw, stored uint32
	crc         uint32 // of the payload as it is stored, in one piece; only of an extended entry
}

// putHead writes header and tags section, without the checksum. The length of head is right.
func putHead(key string, head []byte, h *Header, b body) {
	flags := b.flags
	if h.Policy != 0 {
		flags |= flagPolicy
	}
	if h.OwnTTL {
		flags |= flagOwnTTL
	}
	if h.Extended {
		flags |= flagExtended
	}
	le := binary.LittleEndian
	head[0], head[1], head[versionOffset], head[flagsOffset] = magic0, magic1, version, flags
	le.PutUint32(head[codecOffset:], b.codec)
	le.PutUint64(head[loadStartOffset:], uint64(h.LoadStart))
	le.PutUint64(head[freshUntilOffset:], uint64(h.FreshUntil))
	le.PutUint64(head[deadUntilOffset:], uint64(h.DeadUntil))
	le.PutUint32(head[loadDurationOffset:], saturate(h.LoadDuration))
	le.PutUint32(head[rawLenOffset:], b.raw)
	le.PutUint32(head[storedLenOffset:], b.stored)
	le.PutUint32(head[TagsLenOffset:], uint32(len(head)-HeaderLen))
	copy(head[NonceOffset:], h.Nonce[:])
	hash := hashKey(key)
	copy(head[keyHashOffset:], hash[:])
	section := putTags(head[HeaderLen:HeaderLen], h.Tags)
	if h.Policy != 0 {
		section = le.AppendUint64(section, h.Policy)
	}
	if h.Extended {
		putRecords(section, h, b.crc)
	}
}

// sectionSize is the length of the tags section. The error is ErrTags or ErrETag.
func sectionSize(h *Header) (int, error) {
	size, err := tagsSize(h.Tags)
	if err != nil {
		return 0, err
	}
	if len(h.ETag) > MaxETag {
		return 0, ErrETag
	}
	if h.Policy != 0 {
		size += policyLen
	}
	if h.Extended {
		size += recordsSize(h)
	}
	return size, nil
}

func tagsSize(tags []Tag) (int, error) {
	if len(tags) > MaxTags {
		return 0, ErrTags
	}
	size := 2
	for _, t := range tags {
		if len(t.Name) > MaxTagName {
			return 0, ErrTags
		}
		size += 2 + len(t.Name) + 8
	}
	return size, nil
}

func putTags(b []byte, tags []Tag) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, uint16(len(tags)))
	for _, t := range tags {
		b = le.AppendUint16(b, uint16(len(t.Name)))
		b = append(b, t.Name...)
		b = le.AppendUint64(b, t.Generation)
	}
	return b
}

func saturate(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), math.MaxUint32))
}

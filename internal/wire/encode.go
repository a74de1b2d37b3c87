package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/klauspost/compress/s2"
)

// Encode returns the value to store under key, in a buffer of its own. It returns ErrTooLarge for a payload above
// lim.MaxValue, and ErrTags for tags out of bounds.
func Encode(key string, h Header, payload []byte, lim Limits) ([]byte, error) {
	if !lim.admits(uint64(len(payload))) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(payload), lim.MaxValue)
	}
	tagsLen, err := tagsSize(h.Tags)
	if err != nil {
		return nil, err
	}

	if h.Policy != 0 {
		tagsLen += policyLen
	}
	head := HeaderLen + tagsLen
	compress := lim.CompressFrom >= 0 && len(payload) >= lim.CompressFrom
	room := len(payload)
	if compress {
		// s2 writes in place only if its worst case fits. The surplus lives as long as the write to Redis.
		room = s2.MaxEncodedLen(len(payload))
	}
	value := make([]byte, head+room)

	var flags byte
	stored := 0
	if compress {
		stored = len(s2.Encode(value[head:], payload))
	}
	if compress && stored < len(payload) && plausible(uint64(len(payload)), uint64(stored)) {
		flags |= flagCompressed
	} else {
		stored = copy(value[head:], payload)
	}
	codec := h.Codec
	if h.Negative {
		flags |= flagNegative
		codec = 0
		if len(payload) > 0 {
			flags |= flagText
		}
	}
	if h.Policy != 0 {
		flags |= flagPolicy
	}
	if h.OwnTTL {
		flags |= flagOwnTTL
	}
	value = value[:head+stored]

	le := binary.LittleEndian
	value[0], value[1], value[versionOffset], value[flagsOffset] = magic0, magic1, version, flags
	le.PutUint32(value[codecOffset:], codec)
	le.PutUint64(value[loadStartOffset:], uint64(h.LoadStart))
	le.PutUint64(value[freshUntilOffset:], uint64(h.FreshUntil))
	le.PutUint64(value[deadUntilOffset:], uint64(h.DeadUntil))
	le.PutUint32(value[loadDurationOffset:], saturate(h.LoadDuration))
	le.PutUint32(value[rawLenOffset:], uint32(len(payload)))
	le.PutUint32(value[storedLenOffset:], uint32(stored))
	le.PutUint32(value[TagsLenOffset:], uint32(tagsLen))
	copy(value[NonceOffset:], h.Nonce[:])
	hash := hashKey(key)
	copy(value[keyHashOffset:], hash[:])
	putTags(value[HeaderLen:head], h.Tags)
	if h.Policy != 0 {
		le.PutUint64(value[head-policyLen:], h.Policy)
	}
	le.PutUint32(value[crcOffset:], checksum(value))
	return value, nil
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

func putTags(section []byte, tags []Tag) {
	le := binary.LittleEndian
	b := le.AppendUint16(section[:0], uint16(len(tags)))
	for _, t := range tags {
		b = le.AppendUint16(b, uint16(len(t.Name)))
		b = append(b, t.Name...)
		b = le.AppendUint64(b, t.Generation)
	}
}

func saturate(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), math.MaxUint32))
}

package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/s2"
)

// Decode returns the header and the payload that Encode was given, if value is an intact entry of this key. The payload of an
// uncompressed entry lies inside value, so value must not be changed afterwards. The capacity of the payload is clipped, so appending to
// it copies. The payload of a compressed entry is newly allocated.
//
// The errors are ErrForeign, ErrNewer, ErrCorrupt, ErrWrongKey and ErrTooLarge. Decode checks all lengths against their bounds first.
// Until then it allocates only the tags section, 36 KB at most.
func Decode(key string, value []byte, lim Limits) (Header, []byte, error) {
	e, err := open(key, value)
	if err != nil {
		return Header{}, nil, err
	}
	if e.flags&flagChunked != 0 {
		return Header{}, nil, fmt.Errorf("%w: chunks of a manifest", ErrCorrupt)
	}
	if !lim.admits(e.raw) {
		return Header{}, nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, e.raw, lim.MaxValue)
	}
	if e.flags&flagCompressed != 0 {
		if !plausible(e.raw, uint64(len(e.payload))) {
			return Header{}, nil, fmt.Errorf("%w: %d bytes from %d", ErrCorrupt, e.raw, len(e.payload))
		}
		e.payload, err = decompress(e.payload, int(e.raw))
		if err != nil {
			return Header{}, nil, err
		}
	} else if e.raw != uint64(len(e.payload)) {
		return Header{}, nil, fmt.Errorf("%w: raw length", ErrCorrupt)
	}
	return e.header, e.payload, nil
}

// An envelope is an intact value of a key.
type envelope struct {
	header  Header
	flags   byte
	raw     uint64 // length of the payload before compression
	payload []byte // as stored; of a chunked value the manifest

	payloadCRC uint32 // of the payload as stored, in one piece; only of an extended entry
}

// open checks a value except for the content of its payload.
func open(key string, value []byte) (e envelope, err error) {
	if err := recognize(value); err != nil {
		return e, err
	}
	if len(value) < HeaderLen {
		return e, fmt.Errorf("%w: header cut short", ErrCorrupt)
	}

	le := binary.LittleEndian
	stored := uint64(le.Uint32(value[storedLenOffset:]))
	tagsLen := uint64(le.Uint32(value[TagsLenOffset:]))
	if tagsLen > maxTagsLen || HeaderLen+tagsLen+stored != uint64(len(value)) {
		return e, fmt.Errorf("%w: length", ErrCorrupt)
	}
	if err := e.openHead(key, value); err != nil {
		return e, err
	}
	e.payload = value[HeaderLen+tagsLen : len(value) : len(value)]
	if e.header.Extended && e.flags&flagChunked == 0 && crc32.Checksum(e.payload, castagnoli) != e.payloadCRC {
		return e, fmt.Errorf("%w: checksum of the payload", ErrCorrupt)
	}
	return e, nil
}

// openHead checks a value but for its payload, which need not be there if the entry is extended and not in chunks. The length of the tags is
// within value.
func (e *envelope) openHead(key string, value []byte) (err error) {
	le := binary.LittleEndian
	if le.Uint32(value[crcOffset:]) != checksum(value) {
		return fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	// The checksum comes first: a damaged hash must not pass for the hash of another key.
	if hashKey(key) != [keyHashLen]byte(value[keyHashOffset:]) {
		return ErrWrongKey
	}
	e.flags = value[flagsOffset]
	e.raw = uint64(le.Uint32(value[rawLenOffset:]))
	e.header = fixedFields(value)
	if e.payloadCRC, err = e.header.parseSection(e.flags, value[HeaderLen:HeaderLen+int(le.Uint32(value[TagsLenOffset:]))]); err != nil {
		return err
	}
	stored := le.Uint32(value[storedLenOffset:])
	if text := e.flags&flagText != 0; e.header.Negative && (e.header.Codec != 0 || text != (stored != 0)) || text && !e.header.Negative {
		return fmt.Errorf("%w: negative entry with a payload", ErrCorrupt)
	}
	return nil
}

// fixedFields returns the header without what the tags section and the manifest say.
func fixedFields(head []byte) Header {
	le, flags := binary.LittleEndian, head[flagsOffset]
	return Header{
		Codec:        le.Uint32(head[codecOffset:]),
		Negative:     flags&flagNegative != 0,
		OwnTTL:       flags&flagOwnTTL != 0,
		Extended:     flags&flagExtended != 0,
		LoadStart:    int64(le.Uint64(head[loadStartOffset:])),
		FreshUntil:   int64(le.Uint64(head[freshUntilOffset:])),
		DeadUntil:    int64(le.Uint64(head[deadUntilOffset:])),
		LoadDuration: time.Duration(le.Uint32(head[loadDurationOffset:])) * time.Millisecond,
		Nonce:        Nonce(head[NonceOffset:]),
		Payload:      Nonce(head[NonceOffset:]),
	}
}

// parseSection reads a tags section: the tags, the policy and, in an extended entry, the records. It returns the checksum of the payload of an
// extended entry.
func (h *Header) parseSection(flags byte, section []byte) (crc uint32, err error) {
	var rest []byte
	if h.Tags, rest, err = parseTags(section); err != nil {
		return 0, err
	}
	if flags&flagPolicy != 0 {
		if len(rest) < policyLen {
			return 0, fmt.Errorf("%w: no policy", ErrCorrupt)
		}
		if h.Policy, rest = binary.LittleEndian.Uint64(rest), rest[policyLen:]; h.Policy == 0 {
			return 0, fmt.Errorf("%w: the policy that is never written", ErrCorrupt)
		}
	}
	if flags&flagExtended != 0 {
		return h.parseRecords(rest)
	}
	if len(rest) > 0 {
		return 0, fmt.Errorf("%w: bytes after the tags", ErrCorrupt)
	}
	return 0, nil
}

func parseTags(section []byte) (tags []Tag, rest []byte, err error) {
	le := binary.LittleEndian
	if len(section) < 2 {
		return nil, nil, fmt.Errorf("%w: no tags section", ErrCorrupt)
	}
	count := int(le.Uint16(section))
	if count > MaxTags {
		return nil, nil, fmt.Errorf("%w: too many tags", ErrCorrupt)
	}
	rest = section[2:]
	for range count {
		if len(rest) < 2 {
			return nil, nil, fmt.Errorf("%w: tags cut short", ErrCorrupt)
		}
		n := int(le.Uint16(rest))
		if n > MaxTagName {
			return nil, nil, fmt.Errorf("%w: tag name too long", ErrCorrupt)
		}
		if len(rest) < 2+n+8 {
			return nil, nil, fmt.Errorf("%w: tags cut short", ErrCorrupt)
		}
		rest = rest[2+n+8:]
	}
	if count == 0 {
		return nil, rest, nil
	}
	list := section[2 : len(section)-len(rest)]
	slot := &lastTags[maphash.Bytes(tagsSeed, list)%uint64(len(lastTags))]
	if last := slot.Load(); last != nil && last.text == string(list) {
		return last.tags, rest, nil
	}
	text := string(list) // of which all names are parts: one allocation
	tags = make([]Tag, count)
	at := 0
	for i := range tags {
		n := int(le.Uint16(list[at:]))
		tags[i] = Tag{Name: text[at+2 : at+2+n], Generation: le.Uint64(list[at+2+n:])}
		at += 2 + n + 8
	}
	if len(text) <= longestLastTags {
		slot.Store(&parsedTags{text, tags})
	}
	return tags, rest, nil
}

// lastTags are lists of tags that were parsed last: most values of a policy carry the same tags with the same generations. Nobody changes a parsed
// list.
var (
	lastTags [64]atomic.Pointer[parsedTags]
	tagsSeed = maphash.MakeSeed()
)

// longestLastTags is how long a list may be, in bytes, to be kept.
const longestLastTags = 512

type parsedTags struct {
	text string // as stored
	tags []Tag
}

// decompress compares the length in the block with the admitted length before it allocates. A block of a hundred bytes can claim
// 4 GiB.
func decompress(block []byte, raw int) ([]byte, error) {
	promised, err := s2.DecodedLen(block)
	if err != nil || promised != raw {
		return nil, fmt.Errorf("%w: decompressed length", ErrCorrupt)
	}
	payload, err := s2.Decode(make([]byte, raw), block)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return payload, nil
}

// recognize checks magic, version and flags only. The layout of everything else depends on them.
func recognize(value []byte) error {
	if len(value) < 2 || value[0] != magic0 || value[1] != magic1 {
		return ErrForeign
	}
	if len(value) <= versionOffset {
		return fmt.Errorf("%w: no version", ErrCorrupt)
	}
	switch v := value[versionOffset]; {
	case v == 0:
		// No build ever wrote version 0, so a reader may overwrite the entry.
		return fmt.Errorf("%w: version 0", ErrCorrupt)
	case v > version:
		return fmt.Errorf("%w: version %d", ErrNewer, v)
	}
	if len(value) <= flagsOffset {
		return fmt.Errorf("%w: no flags", ErrCorrupt)
	}
	if unknown := value[flagsOffset] &^ knownFlags; unknown != 0 {
		return fmt.Errorf("%w: flags %#02x", ErrNewer, unknown)
	}
	return nil
}

// HeadNonce returns the nonce of a value from its first HeadLen bytes or more. It reports false if they are not the start of an entry
// that this build can read. It checks nothing else. A writer uses it to find out whether a value is its own.
func HeadNonce(head []byte) (Nonce, bool) {
	if recognize(head) != nil || len(head) < NonceOffset+len(Nonce{}) {
		return Nonce{}, false
	}
	return Nonce(head[NonceOffset:]), true
}

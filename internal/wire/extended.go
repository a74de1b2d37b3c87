package wire

import (
	"encoding/binary"
	"fmt"
)

// The types of the records behind the tags of an extended entry. See the documentation of the package.
const (
	recordETag = 1 + iota
	recordStaleUntil
	recordPayloadCRC
)

const recordHead = 3 // type and length of a record

func recordsSize(h *Header) int {
	size := recordHead + 4
	if h.ETag != "" {
		size += recordHead + len(h.ETag)
	}
	if h.StaleUntil != 0 {
		size += recordHead + 8
	}
	return size
}

func putRecords(b []byte, h *Header, crc uint32) {
	le := binary.LittleEndian
	begin := func(kind byte, length int) { b = le.AppendUint16(append(b, kind), uint16(length)) }
	if h.ETag != "" {
		begin(recordETag, len(h.ETag))
		b = append(b, h.ETag...)
	}
	if h.StaleUntil != 0 {
		begin(recordStaleUntil, 8)
		b = le.AppendUint64(b, uint64(h.StaleUntil))
	}
	begin(recordPayloadCRC, 4)
	_ = le.AppendUint32(b, crc)
}

// parseRecords reads the records to the end of the tags section.
func (h *Header) parseRecords(rest []byte) (crc uint32, err error) {
	le := binary.LittleEndian
	var seen [recordPayloadCRC + 1]bool
	for len(rest) > 0 {
		if len(rest) < recordHead {
			return 0, fmt.Errorf("%w: records cut short", ErrCorrupt)
		}
		kind, n := rest[0], int(le.Uint16(rest[1:]))
		if rest = rest[recordHead:]; len(rest) < n {
			return 0, fmt.Errorf("%w: records cut short", ErrCorrupt)
		}
		content := rest[:n]
		rest = rest[n:]
		if int(kind) >= len(seen) || kind == 0 {
			continue // a later build's
		}
		if seen[kind] {
			return 0, fmt.Errorf("%w: two records of one type", ErrCorrupt)
		}
		seen[kind] = true
		switch {
		case kind == recordETag && n > 0 && n <= MaxETag:
			h.ETag = string(content)
		case kind == recordStaleUntil && n == 8 && le.Uint64(content) != 0:
			h.StaleUntil = int64(le.Uint64(content))
		case kind == recordPayloadCRC && n == 4:
			crc = le.Uint32(content)
		default:
			return 0, fmt.Errorf("%w: record of type %d with %d bytes", ErrCorrupt, kind, n)
		}
	}
	if !seen[recordPayloadCRC] {
		return 0, fmt.Errorf("%w: no checksum of the payload", ErrCorrupt)
	}
	return crc, nil
}

// Restamp returns a new first part for an extended value of key, without its payload: the value is as right as one that is loaded now. head is
// the beginning of the stored value, of at least as many bytes as Peek needs. The result replaces so many bytes of the value. Of a chunked value
// it is the whole new value.
//
// The times, OwnTTL, LoadDuration, Nonce, Tags, ETag and StaleUntil are those of h. Codec, Negative, Policy and Payload stay, and so does the payload.
// The length stays the same where the names of the tags, the length of the ETag and whether there is a StaleUntil do. Records that this
// build does not know are left out.
//
// The errors are those of Decode and Encode, and ErrNotExtended. What follows head is not looked at: the payload has a checksum of its own.
func Restamp(key string, head []byte, h Header) ([]byte, error) {
	if err := recognize(head); err != nil {
		return nil, err
	}
	if head[flagsOffset]&flagExtended == 0 {
		return nil, ErrNotExtended
	}
	if len(head) < HeaderLen {
		return nil, fmt.Errorf("%w: header cut short", ErrCorrupt)
	}
	le := binary.LittleEndian
	tagsLen, manifest := le.Uint32(head[TagsLenOffset:]), manifestLen(head[flagsOffset])
	if tagsLen > maxTagsLen || len(head) < HeaderLen+int(tagsLen)+manifest {
		return nil, fmt.Errorf("%w: length", ErrCorrupt)
	}
	head = head[:HeaderLen+int(tagsLen)+manifest]
	var e envelope
	if err := e.openHead(key, head); err != nil {
		return nil, err
	}
	b := body{
		flags: e.flags & (flagCompressed | flagNegative | flagText | flagChunked), codec: e.header.Codec,
		raw: uint32(e.raw), stored: le.Uint32(head[storedLenOffset:]), crc: e.payloadCRC,
	}
	if manifest > 0 {
		e.payload = head[HeaderLen+int(tagsLen):]
		if _, err := e.manifest(); err != nil {
			return nil, err
		}
		if b.stored != uint32(manifest) {
			return nil, fmt.Errorf("%w: manifest", ErrCorrupt)
		}
	}
	h.Extended, h.Policy = true, e.header.Policy
	section, err := sectionSize(&h)
	if err != nil {
		return nil, err
	}
	stamped := make([]byte, HeaderLen+section, HeaderLen+section+manifest)
	putHead(key, stamped, &h, b)
	stamped = append(stamped, e.payload...)
	le.PutUint32(stamped[crcOffset:], checksum(stamped))
	return stamped, nil
}

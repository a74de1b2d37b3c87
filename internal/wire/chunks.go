package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/s2"
)

// ManifestLen is the length of a manifest. A manifest is at the end of its value:
//
//	size  field
//	   4  length of the stored payload
//	   4  length of each chunk but the last
//	   4  checksum of the whole value; of an extended entry that of the payload
//
// A value with a manifest is the head of a larger value. The payload lies in chunks, whose names contain the value's nonce. The
// checksum of the head covers the manifest and no chunk, so a reader can check the head alone.
//
// The manifest of an extended entry has 12 bytes more at its beginning: the nonce in the names of the chunks. The value's own nonce is
// another one after a Restamp.
const ManifestLen = 12

// manifestLen is the length of the manifest of a value with these flags; 0 for one in one piece.
func manifestLen(flags byte) int {
	switch flags & (flagChunked | flagExtended) {
	case flagChunked:
		return ManifestLen
	case flagChunked | flagExtended:
		return len(Nonce{}) + ManifestLen
	}
	return 0
}

// maxChunks is how many chunks a reader asks for at most. A forged manifest could name a chunk for every byte.
const maxChunks = 1 << 14

// Split cuts the payload of an encoded value into chunks of size bytes. It returns the value to store in place of the encoded one, and
// the chunks. The chunks lie inside value.
func Split(value []byte, size int) (manifest []byte, chunks [][]byte) {
	le := binary.LittleEndian
	head := HeaderLen + int(le.Uint32(value[TagsLenOffset:]))
	payload := value[head:]
	flags, sum := value[flagsOffset]|flagChunked, le.Uint32(value[crcOffset:])
	manifest = append(make([]byte, 0, head+manifestLen(flags)), value[:head]...)
	if flags&flagExtended != 0 {
		sum = crc32.Checksum(payload, castagnoli)
		manifest = append(manifest, value[NonceOffset:NonceOffset+len(Nonce{})]...)
	}
	manifest = le.AppendUint32(manifest, uint32(len(payload)))
	manifest = le.AppendUint32(manifest, uint32(size))
	manifest = le.AppendUint32(manifest, sum)
	manifest[flagsOffset] = flags
	le.PutUint32(manifest[storedLenOffset:], uint32(manifestLen(flags)))
	le.PutUint32(manifest[crcOffset:], checksum(manifest))
	for len(payload) > 0 {
		n := min(size, len(payload))
		chunks = append(chunks, payload[:n:n])
		payload = payload[n:]
	}
	return manifest, chunks
}

// A Manifest describes the chunks of a value.
type Manifest struct {
	Header Header // its Payload is part of the chunks' names
	Chunks int    // the number of chunks
	Size   int    // bytes of all chunks together
	chunk  int
	crc    uint32
}

// IsChunked reports whether value has a manifest in place of its payload. It checks the first bytes only.
func IsChunked(value []byte) bool {
	return recognize(value) == nil && value[flagsOffset]&flagChunked != 0
}

// ReadManifest returns the manifest of a value for which IsChunked is true. The errors are those of Decode. ReadManifest refuses a value
// that is too large by the length in its header, before any chunk is read.
func ReadManifest(key string, value []byte, lim Limits) (Manifest, error) {
	e, err := open(key, value)
	if err != nil {
		return Manifest{}, err
	}
	m, err := e.manifest()
	if err != nil {
		return Manifest{}, err
	}
	if !lim.admits(e.raw) {
		return Manifest{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, e.raw, lim.MaxValue)
	}
	if uint64(m.Size) > uint64(s2.MaxEncodedLen(int(e.raw))) {
		return Manifest{}, fmt.Errorf("%w: more chunks than the payload can fill", ErrCorrupt)
	}
	return m, nil
}

// manifest checks the manifest of a chunked value.
func (e *envelope) manifest() (m Manifest, err error) {
	if e.flags&flagChunked == 0 || len(e.payload) != manifestLen(e.flags) {
		return m, fmt.Errorf("%w: manifest", ErrCorrupt)
	}
	sizes := e.payload[len(e.payload)-ManifestLen:]
	le := binary.LittleEndian
	size, chunk, crc := uint64(le.Uint32(sizes)), uint64(le.Uint32(sizes[4:])), le.Uint32(sizes[8:])
	if chunk == 0 || size == 0 || (size-1)/chunk >= maxChunks {
		return m, fmt.Errorf("%w: manifest", ErrCorrupt)
	}
	m = Manifest{Header: e.header, Chunks: int((size + chunk - 1) / chunk), Size: int(size), chunk: int(chunk), crc: crc}
	if e.header.Extended {
		if crc != e.payloadCRC {
			return Manifest{}, fmt.Errorf("%w: two checksums of the payload", ErrCorrupt)
		}
		m.Header.Payload = Nonce(e.payload)
	}
	return m, nil
}

// Lengths returns the length of each chunk, in order.
func (m Manifest) Lengths() []int {
	lengths := make([]int, m.Chunks)
	for i := range lengths {
		lengths[i] = m.length(i)
	}
	return lengths
}

func (m Manifest) length(i int) int { return min(m.chunk, m.Size-i*m.chunk) }

// Join is Decode for a value with a manifest and its chunks.
func (m Manifest) Join(key string, value []byte, chunks [][]byte, lim Limits) (Header, []byte, error) {
	le := binary.LittleEndian
	head := len(value) - manifestLen(value[flagsOffset])
	whole := append(make([]byte, 0, head+m.Size), value[:head]...)
	for i, c := range chunks {
		if len(c) != m.length(i) {
			return Header{}, nil, fmt.Errorf("%w: length of a chunk", ErrCorrupt)
		}
		whole = append(whole, c...)
	}
	if len(whole) != head+m.Size {
		return Header{}, nil, fmt.Errorf("%w: number of chunks", ErrCorrupt)
	}
	whole[flagsOffset] &^= flagChunked
	le.PutUint32(whole[storedLenOffset:], uint32(m.Size))
	if sum := m.crc; whole[flagsOffset]&flagExtended == 0 {
		le.PutUint32(whole[crcOffset:], sum)
	} else { // the sum is the payload's, and Decode compares it; ReadManifest has checked the head
		le.PutUint32(whole[crcOffset:], checksum(whole))
	}
	h, payload, err := Decode(key, whole, lim)
	if err != nil {
		return Header{}, nil, err
	}
	h.Payload = m.Header.Payload
	return h, payload, nil
}

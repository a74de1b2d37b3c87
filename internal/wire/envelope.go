// Package wire turns typed values into the bytes that aside keeps in Redis, and back. An envelope carries what a reader
// must know before it may trust a payload; a codec turns the payload into a Go value. Whatever the bytes are, decoding
// returns an error and never panics, and it allocates no more than its limits allow.
//
// # The envelope, version 1
//
// All integers are little endian. Times are microseconds since the Unix epoch on the clock of the Redis primary that
// holds the key.
//
//	offset  size  field
//	     0     2  magic, C1 A5
//	     2     1  version, 1
//	     3     1  flags: bit 0 compressed with s2, bit 1 negative, bit 2 chunked: the payload is a manifest, see [ManifestLen],
//	              bit 3 the tags section ends with a policy, bit 4 negative with a payload: the text of its error,
//	              bit 5 the loader or the caller has chosen how long it is fresh, and not the policy
//	     4     4  codec: [ID] of the codec, 0 in a negative entry
//	     8     8  load start
//	    16     8  fresh until
//	    24     8  dead until
//	    32     4  load duration, milliseconds
//	    36     4  raw length: payload before compression
//	    40     4  stored length: payload as it follows
//	    44     4  length of the tags section
//	    48    12  nonce
//	    60    16  first half of the SHA-256 of the full key
//	    76     4  CRC-32C of all other bytes of the value
//	    80     -  tags section: count (2), then for each tag: name length (2), name, generation (8); with bit 3 the policy (8)
//	     -     -  payload
//
// The positions of magic and version are fixed for all versions to come, and so is the refusal of a version or a flag
// that a build does not know. A later version may lay out everything else differently, so nothing else is looked at
// before those.
//
// The checksum and the key hash guard against damage and against mixed-up entries. They are not keyed: whoever can write
// to Redis can write entries.
package wire

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/klauspost/compress/s2"
)

const (
	// HeadLen is how many bytes at the start of a value, together with its length, tell one fill from every other: the
	// nonce lies within them. A script that must know whether a key still holds the very value that a reader rejected
	// compares these. A damaged value can be shorter.
	HeadLen = 64

	// HeaderLen is the length of the fixed header in bytes; the tags section starts there.
	HeaderLen = 80

	// NonceOffset is where the nonce starts, in bytes.
	NonceOffset = 48

	// TagsLenOffset is where the length of the tags section stands, a uint32.
	TagsLenOffset = 44

	// MaxTags is how many tags an entry can carry.
	MaxTags = 64

	// MaxTagName is the longest name of a tag, in bytes.
	MaxTagName = 512
)

// The first byte occurs neither in UTF-8 nor as the start of a MessagePack object, so no text, JSON or bare MessagePack
// value is taken for an envelope; in CBOR the two would be a date made of a map, which is none.
const magic0, magic1 = 0xc1, 0xa5

const version = 1

// What a script has to know of the format: how values begin that this package writes, the version and the flags that it
// knows (a larger one of either is a newer build's), and where the start of the load stands, an int64.
const (
	Magic           = "\xc1\xa5"
	Version         = version
	KnownFlags      = knownFlags
	LoadStartOffset = loadStartOffset
	ChunkedFlag     = flagChunked // of the flags: a value that has chunks, and a manifest at its end
)

const (
	flagCompressed = 1 << iota
	flagNegative
	// flagChunked marks a value whose payload lies in chunks. What it has in the payload's place is a manifest.
	flagChunked
	// flagPolicy marks an entry that says which policy of its category it belongs to. A build that does not know the flag could
	// take it for the value of another policy.
	flagPolicy
	// flagText marks a negative entry with the text of the error that said so.
	flagText
	// flagOwnTTL marks an entry whose TTL is not its policy's.
	flagOwnTTL

	knownFlags = flagCompressed | flagNegative | flagChunked | flagPolicy | flagText | flagOwnTTL
)

const (
	versionOffset      = 2
	flagsOffset        = 3
	codecOffset        = 4
	loadStartOffset    = 8
	freshUntilOffset   = 16
	deadUntilOffset    = 24
	loadDurationOffset = 32
	rawLenOffset       = 36
	storedLenOffset    = 40
	keyHashOffset      = 60
	crcOffset          = 76
)

const keyHashLen = 16

// What Decode and Encode can report; all are used with errors.Is.
var (
	// ErrForeign means that the bytes are no envelope at all: something else wrote the key.
	ErrForeign = errors.New("not an entry of an aside cache")
	// ErrNewer means a version or a flag that this build does not know. A newer build wrote the entry: load, but do not
	// overwrite it, or two builds thrash each other's entries for as long as a deployment lasts.
	ErrNewer = errors.New("entry of a newer build")
	// ErrCorrupt means an entry that is damaged: truncated, extended, changed, or not to be decompressed.
	ErrCorrupt = errors.New("corrupt entry")
	// ErrWrongKey means an intact entry that was written for another key.
	ErrWrongKey = errors.New("entry of another key")
	// ErrTooLarge means a payload above Limits.MaxValue.
	ErrTooLarge = errors.New("value larger than MaxValueBytes")
	// ErrTags means more than MaxTags tags, or a name above MaxTagName bytes.
	ErrTags = fmt.Errorf("too many tags or too long a tag: at most %d tags of %d bytes", MaxTags-2, MaxTagName)
)

// Nonce tells one fill of a key from every other, in all processes.
type Nonce [12]byte

// NewNonce returns 96 random bits from crypto/rand. A process number with a counter would repeat after a fork or a
// restored snapshot; these do not.
func NewNonce() Nonce {
	var n Nonce
	// Read never returns an error: it ends the process when the system has no randomness to give.
	_, _ = rand.Read(n[:])
	return n
}

// String returns the nonce as 24 hexadecimal digits.
func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// Tag is the generation that a tag had before the load of an entry began.
type Tag struct {
	Name       string
	Generation uint64
}

// Header is what an envelope says about its payload. Decode checks that it arrived as it was written; whether the times
// and the generations still allow the payload to be served is for the reader.
type Header struct {
	// Codec is the ID of the codec that wrote the payload. A negative entry has none, and Encode writes 0 for it.
	Codec uint32
	// Negative marks a cached "not found". Its payload is the text of the error that said so; empty where that said no more.
	Negative bool
	// Policy tells the policies of one category apart. 0 is the one that is named like its category.
	Policy uint64
	// LoadStart, FreshUntil and DeadUntil are in microseconds since the Unix epoch, on the clock of the key's primary.
	// From FreshUntil on the value is stale, from DeadUntil on it must not be served at all.
	LoadStart, FreshUntil, DeadUntil int64
	// OwnTTL says that FreshUntil does not come from the policy's TTL.
	OwnTTL bool
	// LoadDuration is how long the loader took. It is kept in whole milliseconds, rounded down, at least 0 and at most
	// 2^32-1 (49 days).
	LoadDuration time.Duration
	Nonce        Nonce
	// Tags is nil when there are none.
	Tags []Tag
}

// Limits bounds what is written and what is accepted.
type Limits struct {
	// MaxValue is the largest decoded payload in bytes. The zero value admits only empty ones.
	MaxValue int
	// CompressFrom is the length in bytes from which payloads are compressed with s2, if that makes them smaller.
	// Negative: never. Readers decompress whatever it is.
	CompressFrom int
}

// admits also refuses what an s2 block and the 32 bit lengths of the format cannot hold, about 4 GiB, whatever MaxValue is.
func (l Limits) admits(payloadLen uint64) bool {
	return l.MaxValue >= 0 && payloadLen <= uint64(l.MaxValue) && s2.MaxEncodedLen(int(payloadLen)) >= 0
}

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
		// s2 writes in place only where its worst case fits. The surplus lives as long as the write to Redis.
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

// Decode returns what Encode was given, if value is an intact entry of this key. The payload of an uncompressed entry
// lies inside value, so value must not be changed afterwards; its capacity is clipped, so appending to it copies. That of
// a compressed entry is freshly allocated.
//
// The errors are ErrForeign, ErrNewer, ErrCorrupt, ErrWrongKey and ErrTooLarge. Nothing larger than the tags section, 33
// KB at most, is allocated before all lengths are known to be within bounds.
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
	payload []byte // as stored
}

// open checks all of a value but what its payload is made of.
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
	if HeaderLen+tagsLen+stored != uint64(len(value)) {
		return e, fmt.Errorf("%w: length", ErrCorrupt)
	}
	if le.Uint32(value[crcOffset:]) != checksum(value) {
		return e, fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	// After the checksum, so that a damaged hash is not mistaken for another key's.
	if hashKey(key) != [keyHashLen]byte(value[keyHashOffset:]) {
		return e, ErrWrongKey
	}

	head := HeaderLen + tagsLen
	e.flags = value[flagsOffset]
	tags, policy, err := parseTags(e.flags, value[HeaderLen:head])
	if err != nil {
		return e, err
	}
	e.raw = uint64(le.Uint32(value[rawLenOffset:]))
	e.payload = value[head:len(value):len(value)]
	e.header = Header{
		Codec:        le.Uint32(value[codecOffset:]),
		Negative:     e.flags&flagNegative != 0,
		OwnTTL:       e.flags&flagOwnTTL != 0,
		Policy:       policy,
		LoadStart:    int64(le.Uint64(value[loadStartOffset:])),
		FreshUntil:   int64(le.Uint64(value[freshUntilOffset:])),
		DeadUntil:    int64(le.Uint64(value[deadUntilOffset:])),
		LoadDuration: time.Duration(le.Uint32(value[loadDurationOffset:])) * time.Millisecond,
		Nonce:        Nonce(value[NonceOffset:]),
		Tags:         tags,
	}
	if text := e.flags&flagText != 0; e.header.Negative && (e.header.Codec != 0 || text != (stored != 0)) || text && !e.header.Negative {
		return e, fmt.Errorf("%w: negative entry with a payload", ErrCorrupt)
	}
	return e, nil
}

// HeadNonce returns the nonce of a value of which only the first HeadLen bytes or more are at hand. It is false when they
// are no start of an entry that this build can read. Nothing else is checked: it answers whether a value is one's own.
func HeadNonce(head []byte) (Nonce, bool) {
	if recognize(head) != nil || len(head) < NonceOffset+len(Nonce{}) {
		return Nonce{}, false
	}
	return Nonce(head[NonceOffset:]), true
}

// recognize looks at magic, version and flags only: what else there is depends on them.
func recognize(value []byte) error {
	if len(value) < 2 || value[0] != magic0 || value[1] != magic1 {
		return ErrForeign
	}
	if len(value) <= versionOffset {
		return fmt.Errorf("%w: no version", ErrCorrupt)
	}
	switch v := value[versionOffset]; {
	case v == 0:
		// No build ever wrote it, so none is harmed when it is overwritten.
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

// An s2 block of thirty bytes can hold 64 MiB of zeros. A payload above freeLen is stored as it is where it would shrink to less than
// its mostRatio'th part, and one that claims to have shrunk so far is refused: so few bytes do not make a reader allocate so many.
const (
	freeLen   = 4 << 20
	mostRatio = 1024
)

func plausible(raw, stored uint64) bool { return raw <= freeLen || raw/mostRatio <= stored }

// decompress compares the length that the block promises with the one that was admitted before it allocates: a block of
// a hundred bytes can promise 4 GiB.
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

// policyLen is how many bytes a policy takes at the end of the tags section.
const policyLen = 8

func parseTags(flags byte, section []byte) (tags []Tag, policy uint64, err error) {
	le := binary.LittleEndian
	if flags&flagPolicy != 0 {
		at := len(section) - policyLen
		if at < 0 {
			return nil, 0, fmt.Errorf("%w: no policy", ErrCorrupt)
		}
		policy, section = le.Uint64(section[at:]), section[:at]
		if policy == 0 {
			return nil, 0, fmt.Errorf("%w: the policy that is never written", ErrCorrupt)
		}
	}
	if len(section) < 2 {
		return nil, 0, fmt.Errorf("%w: no tags section", ErrCorrupt)
	}
	count := int(le.Uint16(section))
	if count > MaxTags {
		return nil, 0, fmt.Errorf("%w: too many tags", ErrCorrupt)
	}
	rest := section[2:]
	if count > 0 {
		tags = make([]Tag, 0, count)
	}
	for range count {
		if len(rest) < 2 {
			return nil, 0, fmt.Errorf("%w: tags cut short", ErrCorrupt)
		}
		n := int(le.Uint16(rest))
		if n > MaxTagName {
			return nil, 0, fmt.Errorf("%w: tag name too long", ErrCorrupt)
		}
		if len(rest) < 2+n+8 {
			return nil, 0, fmt.Errorf("%w: tags cut short", ErrCorrupt)
		}
		tags = append(tags, Tag{Name: string(rest[2 : 2+n]), Generation: le.Uint64(rest[2+n:])})
		rest = rest[2+n+8:]
	}
	if len(rest) > 0 {
		return nil, 0, fmt.Errorf("%w: bytes after the tags", ErrCorrupt)
	}
	return tags, policy, nil
}

func saturate(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), math.MaxUint32))
}

func hashKey(key string) [keyHashLen]byte {
	// Keys up to this length are hashed without an allocation.
	var buf [256]byte
	sum := sha256.Sum256(append(buf[:0], key...))
	return [keyHashLen]byte(sum[:])
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(value []byte) uint32 {
	return crc32.Update(crc32.Checksum(value[:crcOffset], castagnoli), castagnoli, value[HeaderLen:])
}

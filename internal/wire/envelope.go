package wire

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/klauspost/compress/s2"
)

const (
	// HeadLen is how many bytes at the start of a value identify its fill, together with the value's length: the nonce lies within
	// them. A script compares them to find out whether a key still holds the value that a reader rejected. A damaged value
	// can be shorter.
	HeadLen = 64

	// HeaderLen is the length of the fixed header in bytes. The tags section starts there.
	HeaderLen = 80

	// NonceOffset is the position of the nonce, in bytes.
	NonceOffset = 48

	// TagsLenOffset is the position of the length of the tags section, a uint32.
	TagsLenOffset = 44

	// MaxTags is how many tags an entry can carry.
	MaxTags = 64

	// MaxTagName is the longest name of a tag, in bytes.
	MaxTagName = 512

	// MaxETag is the longest ETag, in bytes.
	MaxETag = 1024
)

// The first byte occurs neither in UTF-8 nor as the start of a MessagePack object. So no text, JSON or bare MessagePack value passes
// for an envelope. In CBOR the two bytes start a date whose content is a map, which is invalid.
const magic0, magic1 = 0xc1, 0xa5

const version = 1

// The parts of the format that a script needs: the first bytes of every value, the version and the flags that this build knows, and the
// position of the load start, an int64. A larger version or flag is a newer build's.
const (
	Magic           = "\xc1\xa5"
	Version         = version
	KnownFlags      = knownFlags
	LoadStartOffset = loadStartOffset
	ChunkedFlag     = flagChunked  // the flag of a value that has chunks, and a manifest at its end
	ExtendedFlag    = flagExtended // the flag of a value that Restamp can rewrite: its manifest begins with the nonce of its chunks
)

const (
	flagCompressed = 1 << iota
	flagNegative
	// flagChunked marks a value whose payload lies in chunks. A manifest takes the place of the payload.
	flagChunked
	// flagPolicy marks an entry that names its policy within the category. A build that does not know the flag could take the entry
	// for the value of another policy.
	flagPolicy
	// flagText marks a negative entry with the text of the loader's "not found" error.
	flagText
	// flagOwnTTL marks an entry whose TTL is not the TTL of its policy.
	flagOwnTTL
	// flagExtended marks an entry with records behind its tags, whose checksum does not cover its payload. A build that does not know the
	// flag would take both for damage.
	flagExtended

	knownFlags = flagCompressed | flagNegative | flagChunked | flagPolicy | flagText | flagOwnTTL | flagExtended
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

// policyLen is the length of the policy at the end of the tags section, in bytes.
const policyLen = 8

// The errors of Decode and Encode. Compare them with errors.Is.
var (
	// ErrForeign means that the bytes are no envelope: another program wrote the key.
	ErrForeign = errors.New("not an entry of an aside cache")
	// ErrNewer means a version or a flag that this build does not know. A newer build wrote the entry. The reader loads the value, and
	// must not overwrite the entry: otherwise two builds would overwrite each other's entries for as long as a deployment lasts.
	ErrNewer = errors.New("entry of a newer build")
	// ErrCorrupt means an entry that is damaged: truncated, extended, changed, or impossible to decompress.
	ErrCorrupt = errors.New("corrupt entry")
	// ErrWrongKey means an intact entry that was written for another key.
	ErrWrongKey = errors.New("entry of another key")
	// ErrTooLarge means a payload above Limits.MaxValue.
	ErrTooLarge = errors.New("value larger than MaxValueBytes")
	// ErrTags means more than MaxTags tags, or a name above MaxTagName bytes.
	ErrTags = fmt.Errorf("too many tags or too long a tag: at most %d tags of %d bytes", MaxTags-2, MaxTagName)
	// ErrETag means an ETag above MaxETag bytes.
	ErrETag = fmt.Errorf("too long an ETag: at most %d bytes", MaxETag)
	// ErrNotExtended means an entry whose first part cannot be rewritten without its payload.
	ErrNotExtended = errors.New("not an extended entry")
)

// A Nonce identifies one fill of a key among the fills of all processes.
type Nonce [12]byte

// NewNonce returns 96 random bits from crypto/rand. They do not repeat. A process number with a counter would repeat after a fork or a
// restored snapshot.
func NewNonce() Nonce {
	var n Nonce
	// Read never returns an error: it ends the process if the system has no randomness.
	_, _ = rand.Read(n[:])
	return n
}

// String returns the nonce as 24 hexadecimal digits.
func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// A Tag is a tag of an entry, with the generation that the tag had before the entry's load began.
type Tag struct {
	Name       string
	Generation uint64
}

// A Header describes the payload of an envelope. Decode checks that the header is as it was written. The reader decides whether
// the times and the generations still allow the payload to be served.
type Header struct {
	// Codec is the ID of the codec that wrote the payload. A negative entry has none, and Encode writes 0 for it.
	Codec uint32
	// Negative marks a cached "not found". Its payload is the text of the loader's error, and empty if the error has no text of its own.
	Negative bool
	// Policy identifies the policy within a category. 0 is the policy that has the name of its category.
	Policy uint64
	// LoadStart, FreshUntil and DeadUntil are in microseconds since the Unix epoch, on the clock of the key's primary.
	// The value is stale from FreshUntil on. It must not be served at all from DeadUntil on.
	LoadStart, FreshUntil, DeadUntil int64
	// OwnTTL is true if FreshUntil does not come from the policy's TTL.
	OwnTTL bool
	// LoadDuration is how long the loader took. It is kept in whole milliseconds, rounded down, at least 0 and at most
	// 2^32-1 (49 days).
	LoadDuration time.Duration
	Nonce        Nonce
	// Payload names the chunks of a chunked value: it is the nonce of the fill that has stored them. It differs from Nonce after a
	// Restamp. Of a value in one piece it is Nonce. Encode does not look at it: a new payload has the name of its own fill.
	Payload Nonce
	// Tags is nil if there are no tags.
	Tags []Tag
	// Extended is true for an entry that Restamp can rewrite. Encode also writes one where ETag or StaleUntil are given.
	Extended bool
	// ETag is what the source calls this version of the value, "" for nothing.
	ETag string
	// StaleUntil is the end of the time after FreshUntil in which the value may be served at once. 0: the reader's policy says so. In
	// microseconds, as FreshUntil.
	StaleUntil int64
}

// Limits says how entries are written, and which ones are accepted.
type Limits struct {
	// MaxValue is the largest decoded payload in bytes. The zero value admits only empty payloads.
	MaxValue int
	// CompressFrom is the length in bytes from which payloads are compressed with s2, if that makes them smaller.
	// Negative: never. Readers decompress in any case.
	CompressFrom int
	// JSON encodes and decodes the format "json". nil: encoding/json.
	JSON *JSONFunctions
}

// admits reports whether a payload is within MaxValue. An s2 block and the 32 bit lengths of the format hold about 4 GiB at most.
// admits refuses longer payloads, whatever MaxValue is.
func (l Limits) admits(payloadLen uint64) bool {
	return l.MaxValue >= 0 && payloadLen <= uint64(l.MaxValue) && s2.MaxEncodedLen(int(payloadLen)) >= 0
}

// An s2 block of thirty bytes can hold 64 MiB of zeros. A reader must not allocate so much for so few bytes. So a payload above freeLen
// that would shrink to less than 1/mostRatio of its length is stored uncompressed, and a reader refuses an entry that shrank so far.
const (
	freeLen   = 4 << 20
	mostRatio = 1024
)

// plausible reports whether a payload of raw bytes may be stored in so few bytes.
func plausible(raw, stored uint64) bool { return raw <= freeLen || raw/mostRatio <= stored }

func hashKey(key string) [keyHashLen]byte {
	// Keys up to this length are hashed without an allocation.
	var buf [256]byte
	sum := sha256.Sum256(append(buf[:0], key...))
	return [keyHashLen]byte(sum[:])
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the checksum of a value. Of an extended entry it does not cover the payload, which has a checksum of its own, but it does
// cover a manifest: the first part of the value can be checked and rewritten by itself.
func checksum(value []byte) uint32 {
	covered := value[HeaderLen:]
	if value[flagsOffset]&(flagExtended|flagChunked) == flagExtended {
		covered = covered[:min(int64(len(covered)), int64(binary.LittleEndian.Uint32(value[TagsLenOffset:])))]
	}
	return crc32.Update(crc32.Checksum(value[:crcOffset], castagnoli), castagnoli, covered)
}

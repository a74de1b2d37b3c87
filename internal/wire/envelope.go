package wire

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
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

// policyLen is how many bytes a policy takes at the end of the tags section.
const policyLen = 8

// What Decode and Encode can report; all are used with errors.Is.
var (
	// ErrForeign means that the bytes are no envelope at all: something else wrote the key.
	ErrForeign = errors.New("wire: not an aside entry")
	// ErrNewer means a version or a flag that this build does not know. A newer build wrote the entry: load, but do not
	// overwrite it, or two builds thrash each other's entries for as long as a deployment lasts.
	ErrNewer = errors.New("wire: entry of a newer build")
	// ErrCorrupt means an entry that is damaged: truncated, extended, changed, or not to be decompressed.
	ErrCorrupt = errors.New("wire: corrupt entry")
	// ErrWrongKey means an intact entry that was written for another key.
	ErrWrongKey = errors.New("wire: entry of another key")
	// ErrTooLarge means a payload above Limits.MaxValue.
	ErrTooLarge = errors.New("wire: value too large")
	// ErrTags means more than MaxTags tags, or a name above MaxTagName bytes.
	ErrTags = fmt.Errorf("wire: an entry takes at most %d tags with names of at most %d bytes", MaxTags, MaxTagName)
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

// An s2 block of thirty bytes can hold 64 MiB of zeros. A payload above freeLen is stored as it is where it would shrink to less than
// its mostRatio'th part, and one that claims to have shrunk so far is refused: so few bytes do not make a reader allocate so many.
const (
	freeLen   = 4 << 20
	mostRatio = 1024
)

func plausible(raw, stored uint64) bool { return raw <= freeLen || raw/mostRatio <= stored }

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

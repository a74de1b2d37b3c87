package asidehttp

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"strings"
)

// A Body is the body of an HTTP response, made by [Pack] to be cached: the content type, the SHA-256 of the content, and the content in one
// or several codings. The codec Raw, the default, stores these bytes as they are, so a hit decodes nothing. [Serve] writes the coding that the client
// prefers.
//
// The format is: 4 bytes that identify a Body, the SHA-256, the length of the content, the content type, the number of codings, the name and the
// length of each coding, and then the bytes of the codings. Lengths and numbers are uvarints of encoding/binary.
type Body []byte

const (
	magic       = "\xabHB\x01" // the last byte is the version of the form
	maxKind     = 1 << 10      // bytes of a content type
	maxCoding   = 32           // bytes of a coding's name
	maxVariants = 8
)

// The codings that Serve decodes for clients that take none.
const (
	identity = "identity" // the name for no coding, as in Accept-Encoding
	gzipName = "gzip"
	zstdName = "zstd"
)

// A variant is the content in one coding. Its bytes lie in the Body.
type variant struct {
	name string
	data []byte
}

// packed is a Body that was read.
type packed struct {
	sum      []byte
	size     int64 // of the content
	kind     string
	variants [maxVariants]variant // an array, so that reading allocates little
	n        int
}

var errBody = errors.New("not a Body that Pack has made")

// read reads the parts of a Body. A Body from Redis may be any bytes, so each length is checked before it is used.
func (b Body) read() (p packed, err error) {
	rest := []byte(b)
	if len(rest) < len(magic)+sha256.Size || string(rest[:len(magic)]) != magic {
		return p, errBody
	}
	rest = rest[len(magic):]
	p.sum, rest = rest[:sha256.Size], rest[sha256.Size:]
	size, rest, ok := cutNumber(rest)
	kind, rest, ok2 := cutText(rest, maxKind)
	n, rest, ok3 := cutNumber(rest)
	if !ok || !ok2 || !ok3 || size > math.MaxInt64 || !validKind(kind) || n == 0 || n > maxVariants {
		return p, errBody
	}
	p.size, p.kind, p.n = int64(size), string(kind), int(n)
	var lengths [maxVariants]uint64
	for i := range p.n {
		var name []byte
		if name, rest, ok = cutText(rest, maxCoding); !ok || !isToken(name) {
			return p, errBody
		}
		if lengths[i], rest, ok = cutNumber(rest); !ok {
			return p, errBody
		}
		p.variants[i].name = nameOf(name)
	}
	for i := range p.n {
		if lengths[i] > uint64(len(rest)) {
			return p, errBody
		}
		v := &p.variants[i]
		v.data, rest = rest[:lengths[i]], rest[lengths[i]:]
		if v.name == identity && int64(len(v.data)) != p.size {
			return p, errBody
		}
	}
	if len(rest) > 0 || p.plain() == nil {
		return p, errBody
	}
	return p, nil
}

// all returns the variants in the order in which Pack was given their codings.
func (p *packed) all() []variant { return p.variants[:p.n] }

// find returns the variant of a name, or nil.
func (p *packed) find(name string) *variant {
	for i := range p.all() {
		if p.variants[i].name == name {
			return &p.variants[i]
		}
	}
	return nil
}

// plain returns the variant from which the content is written without a coding. zstd is decoded several times as fast as gzip.
func (p *packed) plain() *variant {
	for _, name := range [...]string{identity, zstdName, gzipName} {
		if v := p.find(name); v != nil {
			return v
		}
	}
	return nil
}

// tag returns the ETag of the content in one coding. Each coding has its own, since a strong ETag is for the same bytes (RFC 9110, 8.8.3.3).
func (p *packed) tag(coding string) string {
	b := make([]byte, 0, 64)
	b = p.appendTag(b)
	if coding != identity {
		b = append(append(b, '-'), coding...)
	}
	return string(append(b, '"'))
}

// appendTag appends what the ETags of all codings begin with.
func (p *packed) appendTag(b []byte) []byte {
	return base64.RawURLEncoding.AppendEncode(append(b, '"'), p.sum)
}

func cutNumber(b []byte) (n uint64, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 {
		return 0, nil, false
	}
	return n, b[used:], true
}

func cutText(b []byte, most uint64) (t, rest []byte, ok bool) {
	n, rest, ok := cutNumber(b)
	if !ok || n > most || n > uint64(len(rest)) {
		return nil, nil, false
	}
	return rest[:n], rest[n:], true
}

// nameOf is string(name), without an allocation for the usual names.
func nameOf(name []byte) string {
	for _, known := range [...]string{identity, zstdName, gzipName, "br"} {
		if string(name) == known {
			return known
		}
	}
	return string(name)
}

// validKind reports whether a content type can be the value of a header.
func validKind[T string | []byte](kind T) bool {
	for i := range len(kind) {
		if c := kind[i]; c < ' ' || c > '~' {
			return false
		}
	}
	return 0 < len(kind) && len(kind) <= maxKind
}

// isToken reports whether a name is a token of RFC 9110, 5.6.2, in lower case.
func isToken[T string | []byte](name T) bool {
	for i := range len(name) {
		if c := name[i]; !isTokenByte(c) || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return 0 < len(name) && len(name) <= maxCoding
}

func isTokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

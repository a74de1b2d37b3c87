package asidehttp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// A Coding is a content coding for [Pack]. [Zstd] and [Gzip] return those of this package. Brotli needs a library of yours:
//
//	asidehttp.Coding{Name: "br", NewWriter: func(w io.Writer) io.WriteCloser { return brotli.NewWriterLevel(w, 5) }}
type Coding struct {
	// Name is the coding's name in Accept-Encoding and Content-Encoding, in lower case, at most 32 bytes.
	Name string

	// NewWriter returns a writer that encodes its input into w. Pack closes it. If it returns an error, Pack leaves the coding out.
	NewWriter func(w io.Writer) io.WriteCloser
}

// maxWindow is the largest window that a decoder of the coding zstd has to have (RFC 9659).
const maxWindow = 8 << 20

// Zstd is the coding of RFC 8878, at the default level of klauspost/compress.
func Zstd() Coding {
	return Coding{zstdName, func(w io.Writer) io.WriteCloser {
		z, ok := zstdEncoders.Get().(*zstd.Encoder)
		if !ok {
			// One goroutine: the load is in one already, and other loads need the processors too. Both options are in their ranges.
			z, _ = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(maxWindow))
		}
		z.Reset(w)
		return lent{z, &zstdEncoders}
	}}
}

// Gzip is the coding of RFC 1952, at a level from 1, the fastest, to 9. A level outside of this range panics.
func Gzip(level int) Coding {
	if level < gzip.BestSpeed || level > gzip.BestCompression {
		panic(fmt.Sprintf("asidehttp.Gzip: level is %d: use 1 to 9", level))
	}
	pool := &gzipEncoders[level]
	return Coding{gzipName, func(w io.Writer) io.WriteCloser {
		z, ok := pool.Get().(*gzip.Writer)
		if !ok {
			z, _ = gzip.NewWriterLevel(nil, level) // the level is right
		}
		z.Reset(w)
		return lent{z, pool}
	}}
}

// Encoders take a megabyte each, whatever the length of the body is: they are kept for the next load.
var (
	zstdEncoders sync.Pool                           // of *zstd.Encoder
	gzipEncoders [gzip.BestCompression + 1]sync.Pool // of *gzip.Writer, by level
)

// A lent encoder goes back to its pool when it is closed.
type lent struct {
	encoder
	pool *sync.Pool
}

type encoder interface {
	io.WriteCloser
	Reset(io.Writer)
}

func (l lent) Close() error {
	err := l.encoder.Close()
	l.Reset(nil) // what it has written is not kept
	l.pool.Put(l.encoder)
	return err
}

const (
	minPacked  = 1 << 10 // bytes: a shorter body fits into one packet anyway
	leastSaved = 10      // a coding has to save a tenth
)

// Pack makes a Body of a content type and a body, and encodes the body in each of the codings, seven at most. Call Pack in the loader, so that the
// body is encoded once for each load and not for each request. Default codings: Zstd() and Gzip(6). If a client prefers two codings equally, [Serve]
// takes the earlier one.
//
// A body below 1 KiB is not encoded. A coding that saves less than a tenth is left out. The body without a coding is kept only if neither zstd
// nor gzip is: Serve decodes these for clients that take no coding.
//
// A content type that is empty, longer than 1 KiB or not printable ASCII is replaced by application/octet-stream. Pack panics if a Coding is wrong:
// that is a mistake of the program, and the message names the field.
func Pack(contentType string, body []byte, codings ...Coding) Body {
	if len(codings) == 0 {
		codings = []Coding{Zstd(), Gzip(6)}
	}
	check(codings)
	if !validKind(contentType) {
		contentType = "application/octet-stream"
	}
	var variants []variant
	decoded := false // whether Serve can decode one of them
	if len(body) >= minPacked {
		for _, c := range codings {
			if data, ok := c.encode(body); ok {
				variants = append(variants, variant{c.Name, data})
				decoded = decoded || c.Name == zstdName || c.Name == gzipName
			}
		}
	}
	if !decoded {
		variants = append(variants, variant{identity, body})
	}

	sum := sha256.Sum256(body)
	head := append([]byte(magic), sum[:]...)
	head = binary.AppendUvarint(head, uint64(len(body)))
	head = appendText(head, contentType)
	head = binary.AppendUvarint(head, uint64(len(variants)))
	size := 0
	for _, v := range variants {
		head = binary.AppendUvarint(appendText(head, v.name), uint64(len(v.data)))
		size += len(v.data)
	}
	b := append(make(Body, 0, len(head)+size), head...)
	for _, v := range variants {
		b = append(b, v.data...)
	}
	return b
}

// check panics if a coding is wrong.
func check(codings []Coding) {
	if len(codings) >= maxVariants {
		panic(fmt.Sprintf("asidehttp.Pack: %d codings: use at most %d", len(codings), maxVariants-1))
	}
	for i, c := range codings {
		switch {
		case !isToken(c.Name) || c.Name == identity || c.Name == "*":
			panic(fmt.Sprintf("asidehttp.Pack: Coding.Name is %s: use the name of a content coding in lower case, such as br", quote(c.Name)))
		case c.NewWriter == nil:
			panic(fmt.Sprintf("asidehttp.Pack: Coding.NewWriter of %s is nil", c.Name))
		}
		for _, before := range codings[:i] {
			if before.Name == c.Name {
				panic(fmt.Sprintf("asidehttp.Pack: Coding.Name %s is there twice", c.Name))
			}
		}
	}
}

// encode encodes a body, and reports whether that saves enough.
func (c Coding) encode(body []byte) ([]byte, bool) {
	var b bytes.Buffer
	w := c.NewWriter(&b)
	_, err := w.Write(body)
	if closing := w.Close(); err == nil {
		err = closing
	}
	return b.Bytes(), err == nil && b.Len() <= len(body)-len(body)/leastSaved
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

package asidehttp

import (
	"bytes"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Decoders are large, and clients that take no coding are few: they are kept for the next one.
var (
	zstdDecoders sync.Pool // of *zstd.Decoder
	gzipDecoders sync.Pool // of *gzip.Reader
)

// decodeTo writes the content without a coding, at most as many bytes as the Body says that it has. Where the bytes do not decode, or are fewer,
// it stops: net/http notices that Content-Length was not reached, and closes the connection, so that the client knows.
func (p *packed) decodeTo(w io.Writer) (err error) {
	v := p.plain()
	from := bytes.NewReader(v.data)
	switch v.name {
	case zstdName:
		d, ok := zstdDecoders.Get().(*zstd.Decoder)
		if !ok {
			// One goroutine, the caller's. Without a small buffer that would be decoded at once, whatever its length is then.
			d, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecodeBuffersBelow(0))
		}
		if err = d.Reset(from); err == nil {
			_, err = io.CopyN(w, d, p.size)
		}
		_ = d.Reset(nil) // the Body is not kept
		zstdDecoders.Put(d)
	case gzipName:
		d, ok := gzipDecoders.Get().(*gzip.Reader)
		if !ok {
			d = new(gzip.Reader)
		}
		if err = d.Reset(from); err == nil {
			_, err = io.CopyN(w, d, p.size)
		}
		_ = d.Reset(bytes.NewReader(nil))
		gzipDecoders.Put(d)
	default:
		_, err = w.Write(v.data)
	}
	return err
}

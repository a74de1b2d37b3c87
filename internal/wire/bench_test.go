package wire

import (
	"fmt"
	"testing"
)

// The sizes are a profile, a long session and the whole model catalogue.
var sizes = []struct {
	name  string
	bytes int
}{{"1.6KB", 1600}, {"256KB", 256 << 10}, {"20MB", 20 << 20}}

// catalogue is JSON that s2 brings down to about a third.
func catalogue(size int) []byte {
	b := make([]byte, 0, size+200)
	for i := 0; len(b) < size; i++ {
		b = fmt.Appendf(b, `{"id":"vendor-%d/model-%d","context_length":%d,"pricing":{"prompt":"0.%07d","completion":"0.%07d"}},`,
			i%37, i*40503%100_000, 1024<<(i%8), i*7919%10_000_000, i*104729%10_000_000)
	}
	return b[:size]
}

func benchmark(b *testing.B, run func(b *testing.B, payload []byte, lim Limits)) {
	for _, s := range sizes {
		for _, mode := range []struct {
			name string
			from int
		}{{"s2", 1 << 10}, {"plain", -1}} {
			b.Run(s.name+"/"+mode.name, func(b *testing.B) {
				b.SetBytes(int64(s.bytes))
				b.ReportAllocs()
				run(b, catalogue(s.bytes), Limits{MaxValue: 64 << 20, CompressFrom: mode.from})
			})
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	benchmark(b, func(b *testing.B, payload []byte, lim Limits) {
		h := fixedHeader()
		var value []byte
		for b.Loop() {
			value, _ = Encode("models:all:all", h, payload, lim)
		}
		b.ReportMetric(float64(len(value)), "stored-bytes")
	})
}

func BenchmarkDecode(b *testing.B) {
	benchmark(b, func(b *testing.B, payload []byte, lim Limits) {
		value := encode(b, "models:all:all", fixedHeader(), payload, lim)
		for b.Loop() {
			if _, _, err := Decode("models:all:all", value, lim); err != nil {
				b.Fatal(err)
			}
		}
	})
}

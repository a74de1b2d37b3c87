package asidetest

import (
	"crypto/rand"
)

// Large is a value that no compression makes small: n bytes, in as many chunks as it takes.
func Large(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

const (
	Chunk    = 256 << 10
	LargeKey = "{items:large}!c:"
)

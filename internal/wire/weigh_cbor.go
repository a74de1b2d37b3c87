package wire

import (
	"strconv"
)

// The major types of CBOR, RFC 8949 section 3.1.
const (
	cborMinus = 1 // numbers below zero; 0 is for the others
	cborBytes = 2
	cborText  = 3
	cborList  = 4
	cborMap   = 5
	cborTag   = 6
	cborOther = 7 // truth values, null and floating point numbers
)

const cborNull = 22

// cborItem reads the first byte of an item and the number that follows. It reports false if the data end before that. It also reports
// false for an item of indefinite length, which this package neither writes nor decodes.
func cborItem(data []byte) (major byte, n uint64, size int, ok bool) {
	if len(data) == 0 {
		return 0, 0, 0, false
	}
	major, n = data[0]>>5, uint64(data[0]&0x1f)
	if n < 24 {
		return major, n, 1, true
	}
	if n > 27 {
		return 0, 0, 0, false
	}
	size = 1 + 1<<(n-24)
	if len(data) < size {
		return 0, 0, 0, false
	}
	n = 0
	for _, b := range data[1:size] {
		n = n<<8 | uint64(b)
	}
	return major, n, size, true
}

// cborNumber returns a number in decimal.
func cborNumber(major byte, n uint64) []byte {
	if major == cborMinus {
		return strconv.AppendInt(nil, -1-int64(n), 10)
	}
	return strconv.AppendUint(nil, n, 10)
}

// cbor weighs a CBOR item. It stops if the item is malformed: the decoder checks all of it before it allocates values.
func (w *weigher) cbor(data []byte) {
	var missing []uint64 // how many items each open list or map still lacks
	for first := true; w.left >= 0; first = false {
		for len(missing) > 0 && missing[len(missing)-1] == 0 {
			missing = missing[:len(missing)-1]
			w.end()
		}
		if len(missing) == 0 && !first || len(missing) > maxNesting {
			return
		}
		named := false
		if n := len(missing); n > 0 {
			named = w.stack[n-1].object && missing[n-1]%2 == 0
			missing[n-1]--
		}
		major, n, size, ok := cborItem(data)
		for ok && major == cborTag {
			data = data[size:]
			major, n, size, ok = cborItem(data)
		}
		if !ok {
			return
		}
		null := major == cborOther && size == 1 && n == cborNull
		data = data[size:]
		var text []byte
		if major == cborBytes || major == cborText {
			if n > uint64(len(data)) {
				return
			}
			text, data = data[:n], data[n:]
		}
		if named {
			if s := w.stack[len(w.stack)-1].shape; s != nil && s.kind == structKind && major <= cborMinus {
				text = cborNumber(major, n)
			}
			w.key(text)
		}
		switch {
		case major == cborList || major == cborMap:
			if n > uint64(len(data)) {
				return // malformed: each item takes at least one byte
			}
			w.begin(major == cborMap)
			if major == cborMap {
				n *= 2
			}
			missing = append(missing, n)
		case named:
		case !null:
			w.value(text)
		case len(w.stack) > 0 && !w.stack[len(w.stack)-1].object:
			w.null()
		}
	}
}

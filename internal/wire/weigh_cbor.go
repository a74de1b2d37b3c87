package wire

import (
	"strconv"
)

// The major types of CBOR, RFC 8949 section 3.1.
const (
	cborMinus = 1 // and 0 for numbers that are not below it
	cborBytes = 2
	cborText  = 3
	cborList  = 4
	cborMap   = 5
	cborTag   = 6
	cborOther = 7 // truth values, null and numbers with a point
)

const cborNull = 22

// cborItem reads the first byte of an item and the number that follows. It is false where the data end before, and for a length that is not
// told, which this package neither writes nor decodes.
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

// cborNumber is a number as it is written in decimal.
func cborNumber(major byte, n uint64) []byte {
	if major == cborMinus {
		return strconv.AppendInt(nil, -1-int64(n), 10)
	}
	return strconv.AppendUint(nil, n, 10)
}

// cbor goes through a CBOR item, and stops where it is malformed: the decoder looks at all of it before it makes anything.
func (w *weigher) cbor(data []byte) {
	var missing []uint64 // items, in each list or map that has not ended
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
				return // each item takes a byte at least
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

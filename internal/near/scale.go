package near

import "math"

// otter bounds either the number of entries or their weight, which has 32 bits for each entry. A scale makes the weight bound both. MaxBytes
// weigh as much as MaxEntries of the lightest entries, and no entry weighs less than one of these.
type scale struct {
	most     uint64 // the most that all entries may weigh together
	floor    uint64 // the least that one entry weighs
	perByte  float64
	maxBytes int64
}

func newScale(o Options) scale {
	const full = math.MaxInt32 // leaves room for weights above it, of entries larger than MaxBytes
	entries := uint64(min(o.MaxEntries, full))
	floor := full / entries
	most := floor * entries
	return scale{most: most, floor: floor, perByte: float64(most) / float64(o.MaxBytes), maxBytes: o.MaxBytes}
}

func bytesOf(key string, e *Entry) int64 { return e.Size + int64(len(key)) }

// weight returns the weight of an entry. It is above most for an entry larger than MaxBytes, within 32 bits.
func (s scale) weight(key string, e *Entry) uint32 {
	w := math.Ceil(float64(bytesOf(key, e)) * s.perByte)
	return uint32(max(s.floor, uint64(min(w, math.MaxUint32))))
}

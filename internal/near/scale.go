package near

import "math"

// otter bounds either the number of entries or their weight, in 32 bits for each. A scale has the weight bound both: all that MaxBytes
// allows for weighs as much as MaxEntries of the lightest entries, and no entry weighs less than one of those.
type scale struct {
	most     uint64 // what all entries may weigh together
	floor    uint64 // what one weighs at least
	perByte  float64
	maxBytes int64
}

func newScale(o Options) scale {
	const full = math.MaxInt32 // so that what is larger than MaxBytes can be told from what is as large
	entries := uint64(min(o.MaxEntries, full))
	floor := full / entries
	most := floor * entries
	return scale{most: most, floor: floor, perByte: float64(most) / float64(o.MaxBytes), maxBytes: o.MaxBytes}
}

func bytesOf(key string, e *Entry) int64 { return e.Size + int64(len(key)) }

// weight is more than most of an entry that is larger than MaxBytes, as far as 32 bits go.
func (s scale) weight(key string, e *Entry) uint32 {
	w := math.Ceil(float64(bytesOf(key, e)) * s.perByte)
	return uint32(max(s.floor, uint64(min(w, math.MaxUint32))))
}

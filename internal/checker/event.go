package main

import (
	"encoding/binary"
	"fmt"
)

// A door is a way into a cache.
type door uint8

const (
	doorLoad       door = iota // GetOrLoad
	doorMany                   // GetOrLoadMany
	doorLoader                 // Loader.Get
	doorLoaderMany             // Loader.GetMany
	doorLookup                 // Lookup
	doorGet                    // Get
	doorRefresh                // GetOrLoad with Refresh
	doorStrong                 // Lookup with Strong
	doorStrongMany             // GetOrLoadMany with Strong

	doorKey         // Invalidate
	doorKeys        // Invalidate, for several
	doorLoaderInval // Loader.Invalidate
	doorTag         // InvalidateTags
	doorCategory    // InvalidateCategory
	doorPattern     // InvalidatePattern
	doorAll         // InvalidateAll

	doorPrevious // Previous: what a loader is told of the cached value
)

var doorNames = [...]string{
	"GetOrLoad", "GetOrLoadMany", "Loader.Get", "Loader.GetMany", "Lookup", "Get", "Refresh", "Strong", "Strong many",
	"Invalidate", "Invalidate many", "Loader.Invalidate", "InvalidateTags", "InvalidateCategory", "InvalidatePattern", "InvalidateAll",
	"Previous",
}

const readDoors = doorStrongMany + 1

func (d door) String() string { return doorNames[d] }
func (d door) strong() bool   { return d == doorStrong || d == doorStrongMany }

// What a Lookup says of where its value was; the other doors do not say.
var (
	tierNames   = []string{"", "memory", "redis", "origin"}
	statusNames = []string{"", "hit", "stale", "miss", "fallback"}
)

func indexOf(names []string, name string) uint8 {
	for i, n := range names {
		if n == name {
			return uint8(i)
		}
	}
	panic("no such name: " + name)
}

// A read is a value that somebody got for one key.
type read struct {
	call, ret int64
	version   uint32
	proc      uint16
	key       uint8
	door      door
	tier      uint8
	status    uint8
}

// An update is a version of a key in the source, which was not current before began, and was when done.
type update struct {
	began, done int64
	proc        uint16
}

// An invalidation is one call, of whatever door.
type invalidation struct {
	call, ret int64
	confirmed int64 // ret, or when Receipt.Wait has returned; 0 where it never has
	restored  int64 // when it is complete in its own process too, where its server was put back to what was before; else 0
	keys      keySet
	proc      uint16
	door      door
}

// here is when it is complete in its own process.
func (i *invalidation) here() int64 { return max(i.ret, i.restored) }

// What a worker sends is a sequence of records of one size: reads, invalidations, confirmations of those that were not
// confirmed when they returned, what Health has said, and loads in the background.
const (
	recordRead = iota
	recordInvalidation
	recordConfirmation
	recordHealth
	recordRefresh
	recordSize = 40
)

func appendRead(b []byte, r *read) []byte {
	b = append(b, recordRead, r.key, byte(r.door), r.tier, r.status, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.call))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.ret))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.version))
	return binary.LittleEndian.AppendUint64(b, 0)
}

// appendInvalidation writes seq too, by which a confirmation names it.
func appendInvalidation(b []byte, i *invalidation, seq uint32, confirmed bool) []byte {
	b = append(b, recordInvalidation, 0, byte(i.door), 0, 0, 0, 0, 0)
	if confirmed {
		b[len(b)-1] = 1
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(i.call))
	b = binary.LittleEndian.AppendUint64(b, uint64(i.ret))
	b = binary.LittleEndian.AppendUint64(b, uint64(i.keys))
	return binary.LittleEndian.AppendUint64(b, uint64(seq))
}

func appendConfirmation(b []byte, seq uint32, at int64) []byte {
	b = append(b, recordConfirmation, 0, 0, 0, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	b = binary.LittleEndian.AppendUint64(b, 0)
	b = binary.LittleEndian.AppendUint64(b, 0)
	return binary.LittleEndian.AppendUint64(b, uint64(seq))
}

// appendHealth notes that Redis is in use, or is not, since a moment.
func appendHealth(b []byte, inUse bool, since int64) []byte {
	b = append(b, recordHealth, 0, 0, 0, 0, 0, 0, 0)
	if inUse {
		b[len(b)-1] = 1
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(since))
	return append(b, make([]byte, 24)...)
}

func appendRefresh(b []byte, r *refresh) []byte {
	b = append(b, recordRefresh, r.key, 0, 0, 0, 0, 0, 0)
	if r.same {
		b[len(b)-1] = 1
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(r.asked))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.read))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.done))
	return append(b, make([]byte, 8)...)
}

// forGood is when an outage ends whose end nobody has told of.
const forGood = 1 << 62

// addRecords adds what a process has sent to its history.
func (h *history) addRecords(proc uint16, b []byte) error {
	if len(b)%recordSize != 0 {
		return fmt.Errorf("process %d has sent %d bytes, not a number of whole records", proc, len(b))
	}
	for ; len(b) > 0; b = b[recordSize:] {
		word := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
		switch b[0] {
		case recordRead:
			h.reads = append(h.reads, read{
				call: int64(word(1)), ret: int64(word(2)), version: uint32(word(3)),
				proc: proc, key: b[1], door: door(b[2]), tier: b[3], status: b[4],
			})
		case recordInvalidation:
			i := invalidation{call: int64(word(1)), ret: int64(word(2)), keys: keySet(word(3)), proc: proc, door: door(b[2])}
			if b[7] == 1 {
				i.confirmed = i.ret
			} else {
				h.unconfirmed++
				h.waiting[waiting{proc, uint32(word(4))}] = len(h.invalidations)
			}
			h.invalidations = append(h.invalidations, i)
		case recordConfirmation:
			w := waiting{proc, uint32(word(4))}
			i, ok := h.waiting[w]
			if !ok {
				return fmt.Errorf("process %d confirms what it has not told of", proc)
			}
			delete(h.waiting, w)
			h.invalidations[i].confirmed = int64(word(1))
		case recordHealth:
			list, inUse := h.outages[proc], b[7] == 1
			if last := len(list) - 1; inUse && last >= 0 {
				list[last].end = min(list[last].end, int64(word(1)))
			} else if !inUse {
				h.outages[proc] = append(list, stoppage{int64(word(1)), forGood})
			}
		case recordRefresh:
			h.refreshes = append(h.refreshes, refresh{asked: int64(word(1)), read: int64(word(2)), done: int64(word(3)), key: b[1], proc: proc, same: b[7] == 1})
		default:
			return fmt.Errorf("process %d has sent a record of kind %d", proc, b[0])
		}
	}
	return nil
}

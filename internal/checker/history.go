package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// A history is what happened in one schedule, as the processes have recorded it.
type history struct {
	scheduleInfo
	reads         []read
	updates       [keyCount][]update // of each key: the first one made version 1
	invalidations []invalidation
	faults        []fault
	processes     []process
	outages       map[uint16][]stoppage // when a process has said that Redis was not in use
	refreshes     []refresh             // counted, and not judged: they are not saved

	excused     int             // invalidations that a failover may have lost: see excuse
	restored    int             // invalidations that were undone with their server: likewise
	unconfirmed int             // of the invalidations, when they returned
	waiting     map[waiting]int // those of them that are not confirmed yet, by their place
}

type waiting struct {
	proc uint16
	seq  uint32
}

// scheduleInfo says which schedule a history is of.
type scheduleInfo struct {
	Topology    string        `json:"topology"`
	Seed        uint64        `json:"seed"`
	DegradedTTL time.Duration `json:"degradedTTL"`
	Persistent  bool          `json:"persistent"` // whether a restarted server had what it was told before
	Apart       bool          `json:"apart"`      // see workerConfig
	Windows     *windows      `json:"windows,omitempty"`
	Placed      bool          `json:"placed,omitempty"` // see movePlaces
}

// A fault is something that was done to servers, to the way there, or to a process.
type fault struct {
	name       string
	proc       uint16 // for what was done to one, else 0
	keys       keySet // for what was done to one node of a cluster: those that it had
	began, end int64
	seen       int    // how often it was seen to have had an effect
	detail     string // which of its kinds it was
}

// A process is one operating-system process. One that was started again is another.
type process struct {
	proc   uint16
	killed int64 // when it was killed; 0 for those that ended by themselves
}

const faultStopped = "process stopped"

const faultPaused = "process paused" // again and again, for a moment

// bound is what aside declares for how long another process may serve what was invalidated: the 3 s within which a broken
// or silent connection is noticed, and then, where there was such a connection, for DegradedTTL.
func (h *history) bound(s strength) time.Duration {
	if s == faulted {
		return settle + max(0, h.DegradedTTL)
	}
	return settle
}

func newHistory(info scheduleInfo) *history {
	return &history{scheduleInfo: info, waiting: map[waiting]int{}, outages: map[uint16][]stoppage{}}
}

// floor is the version of a key that was current when an invalidation was called: what was loaded before is not to be seen
// any more when it is complete.
func (h *history) floor(key int, i *invalidation) uint32 {
	u := h.updates[key]
	n, _ := slices.BinarySearchFunc(u, i.call, func(u update, call int64) int {
		if u.done < call {
			return -1
		}
		return 1
	})
	return uint32(n)
}

// uncovered are the keys whose last version nobody has confirmed to have invalidated: the process that was to do it was
// killed before.
func (h *history) uncovered() (s keySet) {
	for k := range keyCount {
		var covered uint32
		for n := range h.invalidations {
			if i := &h.invalidations[n]; i.confirmed != 0 && i.keys.has(k) {
				covered = max(covered, h.floor(k, i))
			}
		}
		if int(covered) < len(h.updates[k]) {
			s |= one(k)
		}
	}
	return s
}

// lost counts the invalidations that were never confirmed because their process was killed.
func (h *history) lost() (n int) {
	for _, i := range h.invalidations {
		if i.confirmed == 0 {
			n++
		}
	}
	return n
}

// A stoppage is for how long a process did not run.
type stoppage struct{ began, end int64 }

// stoppages are those of each process.
func (h *history) stoppages() map[uint16][]stoppage {
	m := map[uint16][]stoppage{}
	for _, f := range h.faults {
		if f.name == faultStopped || f.name == faultPaused {
			m[f.proc] = append(m[f.proc], stoppage{f.began, f.end})
		}
	}
	return m
}

// running is the time of a process's own: that in which it ran, so far.
func running(stops []stoppage, t int64) int64 {
	own := t
	for _, s := range stops {
		if t > s.began {
			own -= min(t, s.end) - s.began
		}
	}
	return own
}

// A line of a saved history.
type line struct {
	Op string `json:"op"` // schedule, process, outage, fault, update, invalidate or read
	*scheduleInfo
	Proc      uint16   `json:"proc,omitempty"`
	Door      string   `json:"door,omitempty"`
	Key       string   `json:"key,omitempty"`
	Keys      []string `json:"keys,omitempty"`
	Version   uint32   `json:"version"`
	Call      int64    `json:"call,omitempty"`      // ns of CLOCK_MONOTONIC
	Return    int64    `json:"return,omitempty"`    //
	Confirmed int64    `json:"confirmed,omitempty"` // when
	Here      int64    `json:"here,omitempty"`      // when in its own process, unless on return
	Tier      string   `json:"tier,omitempty"`
	Status    string   `json:"status,omitempty"`
	Name      string   `json:"name,omitempty"` // of a fault
	Detail    string   `json:"detail,omitempty"`
	Seen      int      `json:"seen,omitempty"`
}

// save writes the history as JSON, an object a line.
func (h *history) save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	e := json.NewEncoder(w)
	put := func(l line) {
		if err == nil {
			err = e.Encode(l)
		}
	}
	put(line{Op: "schedule", scheduleInfo: &h.scheduleInfo})
	for _, p := range h.processes {
		put(line{Op: "process", Proc: p.proc, Return: p.killed})
	}
	for proc, list := range h.outages {
		for _, o := range list {
			put(line{Op: "outage", Proc: proc, Call: o.began, Return: o.end})
		}
	}
	for _, f := range h.faults {
		put(line{Op: "fault", Name: f.name, Proc: f.proc, Keys: f.keys.names(), Call: f.began, Return: f.end, Detail: f.detail, Seen: f.seen})
	}
	for k, list := range h.updates {
		for n, u := range list {
			put(line{Op: "update", Proc: u.proc, Key: keyName(k), Version: uint32(n + 1), Call: u.began, Return: u.done})
		}
	}
	for _, i := range h.invalidations {
		put(line{Op: "invalidate", Proc: i.proc, Door: i.door.String(), Keys: i.keys.names(), Call: i.call, Return: i.ret, Confirmed: i.confirmed, Here: i.restored})
	}
	for _, r := range h.reads {
		put(line{
			Op: "read", Proc: r.proc, Door: r.door.String(), Key: keyName(int(r.key)), Version: r.version, Call: r.call, Return: r.ret,
			Tier: tierNames[r.tier], Status: statusNames[r.status],
		})
	}
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Close()
	}
	return err
}

// load reads what save has written.
func load(path string) (*history, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := newHistory(scheduleInfo{})
	d := json.NewDecoder(bufio.NewReaderSize(f, 1<<20))
	for n := 1; ; n++ {
		l := line{scheduleInfo: new(scheduleInfo)}
		err := d.Decode(&l)
		if err == io.EOF {
			return h, nil
		}
		if err == nil {
			err = h.add(l)
		}
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, n, err)
		}
	}
}

func keysNamed(names []string) (s keySet, err error) {
	for _, name := range names {
		k, ok := keysByName[name]
		if !ok {
			return 0, fmt.Errorf("there is no key %q", name)
		}
		s |= one(k)
	}
	return s, nil
}

func (h *history) add(l line) error {
	key, known := keysByName[l.Key]
	if !known && l.Key != "" {
		return fmt.Errorf("there is no key %q", l.Key)
	}
	at := slices.Index(doorNames[:], l.Door)
	if at < 0 && l.Door != "" {
		return fmt.Errorf("there is no door %q", l.Door)
	}
	switch l.Op {
	case "schedule":
		h.scheduleInfo = *l.scheduleInfo
	case "process":
		h.processes = append(h.processes, process{l.Proc, l.Return})
	case "outage":
		h.outages[l.Proc] = append(h.outages[l.Proc], stoppage{l.Call, l.Return})
	case "fault":
		keys, err := keysNamed(l.Keys)
		if err != nil {
			return err
		}
		h.faults = append(h.faults, fault{name: l.Name, proc: l.Proc, keys: keys, began: l.Call, end: l.Return, seen: l.Seen, detail: l.Detail})
	case "update":
		if h.updates[key] = append(h.updates[key], update{l.Call, l.Return, l.Proc}); len(h.updates[key]) != int(l.Version) {
			return fmt.Errorf("version %d of %s is not the one after the last", l.Version, l.Key)
		}
	case "invalidate":
		keys, err := keysNamed(l.Keys)
		if err != nil {
			return err
		}
		i := invalidation{call: l.Call, ret: l.Return, confirmed: l.Confirmed, restored: l.Here, keys: keys, proc: l.Proc, door: door(at)}
		if i.confirmed != i.ret {
			h.unconfirmed++
		}
		h.invalidations = append(h.invalidations, i)
	case "read":
		tier, status := slices.Index(tierNames, l.Tier), slices.Index(statusNames, l.Status)
		if tier < 0 || status < 0 {
			return fmt.Errorf("there is no tier %q or no status %q", l.Tier, l.Status)
		}
		h.reads = append(h.reads, read{
			call: l.Call, ret: l.Return, version: l.Version, proc: l.Proc, key: uint8(key), door: door(at), tier: uint8(tier), status: uint8(status),
		})
	default:
		return fmt.Errorf("there is no operation %q", l.Op)
	}
	return nil
}

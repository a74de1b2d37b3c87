package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A source is what caches stand before: it has the true version of each key. It lives in the process that judges, so that no
// fault concerns it, and notes itself when a version came about.
type source struct {
	keys [keyCount]struct {
		mu      sync.Mutex
		updates []update // guarded by mu
	}
	still sync.RWMutex // held by who wants nothing to change for a while

	slow slowness
}

// A slowness is for how long a source keeps back its answers about some keys.
type slowness struct {
	mu   sync.Mutex
	keys keySet        // guarded by mu
	by   time.Duration // guarded by mu
	held atomic.Int64  // answers
}

func (s *slowness) set(keys keySet, by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.by = keys, by
}

func (s *slowness) on() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by > 0
}

// keepBack waits with an answer that has been made.
func (s *slowness) keepBack(keys keySet) {
	s.mu.Lock()
	by := s.by
	if s.keys&keys == 0 || keys == everyKey {
		by = 0
	}
	s.mu.Unlock()
	if by > 0 {
		s.held.Add(1)
		time.Sleep(by)
	}
}

func (s *source) version(key int) uint32 {
	k := &s.keys[key]
	k.mu.Lock()
	defer k.mu.Unlock()
	return uint32(len(k.updates))
}

// update makes the next version.
func (s *source) update(key int, proc uint16) uint32 {
	s.still.RLock()
	defer s.still.RUnlock()
	k := &s.keys[key]
	k.mu.Lock()
	defer k.mu.Unlock()
	u := update{began: now(), proc: proc}
	u.done = now()
	k.updates = append(k.updates, u)
	return uint32(len(k.updates))
}

// addTo adds the versions to a history.
func (s *source) addTo(h *history) {
	for k := range s.keys {
		s.keys[k].mu.Lock()
		h.updates[k] = s.keys[k].updates
		s.keys[k].mu.Unlock()
	}
}

// What is asked of a source: a byte, and the keys as 8 bytes. The answer is the version of each of them, 4 bytes a key.
const (
	askRead   = 'r'
	askUpdate = 'u'
)

// serve answers one connection until it ends.
func (s *source) serve(conn io.ReadWriter, proc uint16) {
	r := bufio.NewReader(conn)
	var question [9]byte
	var answer []byte
	for {
		if _, err := io.ReadFull(r, question[:]); err != nil {
			return
		}
		answer = answer[:0]
		keySet(binary.LittleEndian.Uint64(question[1:])).each(func(key int) {
			v := s.version
			if question[0] == askUpdate {
				v = func(key int) uint32 { return s.update(key, proc) }
			}
			answer = binary.LittleEndian.AppendUint32(answer, v(key))
		})
		if question[0] == askRead {
			s.slow.keepBack(keySet(binary.LittleEndian.Uint64(question[1:])))
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// A remote is a source in another process.
type remote struct {
	path string
	proc uint16
	idle chan net.Conn
}

func newRemote(path string, proc uint16) *remote {
	return &remote{path: path, proc: proc, idle: make(chan net.Conn, 64)}
}

// What a connection begins with: what it is for, and which process it is from.
const (
	forSource  = 's'
	forSession = 'h'
)

func dial(path string, purpose byte, proc uint16) (net.Conn, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	_, err = conn.Write([]byte{purpose, byte(proc), byte(proc >> 8)})
	return conn, err
}

// ask asks for the versions of some keys, in their order.
func (r *remote) ask(what byte, keys keySet) ([]uint32, error) {
	var conn net.Conn
	select {
	case conn = <-r.idle:
	default:
		var err error
		if conn, err = dial(r.path, forSource, r.proc); err != nil {
			return nil, err
		}
	}
	answer := make([]byte, 4*keys.count())
	_, err := conn.Write(binary.LittleEndian.AppendUint64([]byte{what}, uint64(keys)))
	if err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("the source has not answered: %w", err)
	}
	versions := make([]uint32, keys.count())
	for i := range versions {
		versions[i] = binary.LittleEndian.Uint32(answer[4*i:])
	}
	select {
	case r.idle <- conn:
	default:
		conn.Close()
	}
	return versions, nil
}

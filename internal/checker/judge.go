package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/redistest"
)

// A judge has the source, starts the workers, and takes down what they tell.
type judge struct {
	t      testing.TB
	socket string
	source source
	served sync.WaitGroup // a goroutine for each connection

	mu       sync.Mutex
	history  *history             // guarded by mu
	tallies  map[uint16]tally     // the last of each process; guarded by mu
	troubles []string             // guarded by mu
	trouble  int                  // how many there were; guarded by mu
	joined   map[uint16]*employee // guarded by mu
	last     uint16               // the number of the last process; guarded by mu
}

// An employee is a worker as the judge sees it.
type employee struct {
	proc  uint16
	role  int
	sub   *redistest.Subprocess
	conn  net.Conn      // set when joined is closed
	joins chan struct{} // closed when it has connected
	words chan string
	gone  chan struct{} // closed when all that it sent was taken down
}

func newJudge(t testing.TB, info scheduleInfo) *judge {
	j := &judge{
		t: t, socket: filepath.Join(t.TempDir(), "s"), history: newHistory(info),
		tallies: map[uint16]tally{}, joined: map[uint16]*employee{},
	}
	listener, err := net.Listen("unix", j.socket)
	if err != nil {
		t.Fatalf("checker: %v", err)
	}
	j.served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			j.served.Go(func() { j.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		j.served.Wait()
	})
	return j
}

func (j *judge) serve(conn net.Conn) {
	defer conn.Close()
	var head [3]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return
	}
	proc := binary.LittleEndian.Uint16(head[1:])
	if head[0] == forSource {
		j.source.serve(conn, proc)
		return
	}
	j.mu.Lock()
	e := j.joined[proc]
	j.mu.Unlock()
	e.conn = conn
	close(e.joins)
	defer close(e.gone)
	r := bufio.NewReaderSize(conn, 64<<10)
	for {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		payload := make([]byte, binary.LittleEndian.Uint32(head[1:]))
		if _, err := io.ReadFull(r, payload); err != nil {
			return // it was killed in the middle
		}
		j.take(e, head[0], payload)
	}
}

func (j *judge) take(e *employee, kind byte, payload []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch kind {
	case frameRecords:
		if err := j.history.addRecords(e.proc, payload); err != nil {
			j.complain(err.Error())
		}
	case frameMetrics:
		var sum tally
		if err := json.Unmarshal(payload, &sum); err != nil {
			j.complain(err.Error())
		}
		j.tallies[e.proc] = sum
	case frameTrouble:
		j.complain(fmt.Sprintf("process %d: %s", e.proc, payload))
	case frameWord:
		e.words <- string(payload)
	}
}

// complain wants mu.
func (j *judge) complain(text string) {
	if j.trouble++; len(j.troubles) < mostViolations {
		j.troubles = append(j.troubles, text)
	}
}

// hire starts a worker.
func (j *judge) hire(role int, c workerConfig) *employee {
	j.mu.Lock()
	j.last++
	e := &employee{proc: j.last, role: role, joins: make(chan struct{}), words: make(chan string, 8), gone: make(chan struct{})}
	j.joined[e.proc] = e
	j.history.processes = append(j.history.processes, process{proc: e.proc})
	j.mu.Unlock()
	c.Socket, c.Proc = j.socket, e.proc
	text, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	e.sub = redistest.Spawn(j.t, "worker", workerEnv+"="+string(text))
	return e
}

// await waits until a worker says a word.
func (e *employee) await(word string) error {
	timeout := time.NewTimer(3 * patience)
	defer timeout.Stop()
	select {
	case said := <-e.words:
		if said != word {
			return fmt.Errorf("process %d says %q, not %q", e.proc, said, word)
		}
		return nil
	case <-timeout.C:
		return fmt.Errorf("process %d has not said %q in %v", e.proc, word, 3*patience)
	}
}

func (e *employee) tell(words ...any) error {
	_, err := fmt.Fprintln(e.conn, words...)
	return err
}

// kill ends a worker with SIGKILL, and returns when all that it had sent is taken down.
func (j *judge) kill(e *employee) {
	j.mu.Lock()
	n := int(e.proc) - 1 // they are numbered from 1 in the order of their start
	j.history.processes[n].killed = now()
	j.mu.Unlock()
	e.sub.Kill()
	<-e.gone
}

// faulted notes a fault.
func (j *judge) faulted(f fault) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.history.faults = append(j.history.faults, f)
}

// together does the same with all workers at once.
func together(all []*employee, do func(e *employee) error) error {
	errs := make(chan error)
	for _, e := range all {
		go func() { errs <- do(e) }()
	}
	var first error
	for range all {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}

// troubled is an error of what workers have complained about, if they have.
func (j *judge) troubled() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.trouble == 0 {
		return nil
	}
	return fmt.Errorf("%d complaints:\n%s", j.trouble, strings.Join(j.troubles, "\n"))
}

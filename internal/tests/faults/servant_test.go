package faults_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// A servant is another process with a cache.
type servant struct {
	t *testing.T
	p *redistest.Subprocess

	mu sync.Mutex // held from a question to its answer
}

func startServant(t *testing.T, addr string) *servant {
	t.Helper()
	p := redistest.Spawn(t, "servant", "ADDR="+addr)
	line, err := p.Line()
	require.NoError(t, err)
	require.Equal(t, "ready", line)
	return &servant{t: t, p: p}
}

func (s *servant) ask(question string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := fmt.Fprintln(s.p.Stdin, question)
	require.NoError(s.t, err)
	line, err := s.p.Line()
	require.NoError(s.t, err)
	return line
}

type lookedUp struct {
	value, status, tier string
	ttl                 time.Duration
	loads               int
}

func (s *servant) lookup(id, value string) (r lookedUp) {
	var ms int64
	_, err := fmt.Sscan(s.ask("lookup "+id+" "+value), &r.value, &r.status, &r.tier, &ms, &r.loads)
	require.NoError(s.t, err)
	r.ttl = time.Duration(ms) * time.Millisecond
	return r
}

// invalidate reports whether Redis has confirmed it.
func (s *servant) invalidate(id string) bool { return s.ask("invalidate "+id) == "true" }

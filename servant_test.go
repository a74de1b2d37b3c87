package aside_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// servantProcess has a cache of its own and does what it is told, a line at a time: "lookup ID VALUE" looks up a key whose
// loader gives VALUE, and answers with what it got; "invalidate ID" answers whether that was confirmed.
func servantProcess() {
	c := processCache()
	defer c.Close()
	fmt.Println("ready")
	ctx := context.Background()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		words := strings.Fields(in.Text())
		switch words[0] {
		case "lookup":
			loads := 0
			r, err := aside.Lookup(ctx, c, items.Key(words[1]), func(context.Context) (string, error) { loads++; return words[2], nil })
			if err != nil {
				panic(err)
			}
			fmt.Println(r.Value, r.Status, r.Tier, r.TTL.Milliseconds(), loads)
		case "invalidate":
			receipt, err := c.Invalidate(ctx, items.Key(words[1]))
			if err != nil {
				panic(err)
			}
			fmt.Println(receipt.Confirmed)
		}
	}
}

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

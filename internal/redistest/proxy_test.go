package redistest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// client is a connection that sends and gets plain bytes, in RESP2 or RESP3.
type client struct {
	t    *testing.T
	conn *net.TCPConn
	r    *bufio.Reader
}

func connect(t *testing.T, addr string) *client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t: t, conn: conn.(*net.TCPConn), r: bufio.NewReader(conn)}
}

// tracking connects in RESP3, with client tracking on.
func tracking(t *testing.T, addr string) *client {
	t.Helper()
	c := connect(t, addr)
	c.send("HELLO 3")
	c.receive()
	c.expect("CLIENT TRACKING ON", "+OK\r\n")
	return c
}

func encode(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// send sends commands, each a line of words, in one write.
func (c *client) send(commands ...string) {
	c.t.Helper()
	var b strings.Builder
	for _, command := range commands {
		b.WriteString(encode(strings.Fields(command)...))
	}
	c.write(b.String())
}

func (c *client) write(raw string) {
	c.t.Helper()
	if err := c.conn.SetWriteDeadline(time.Now().Add(Patience)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.WriteString(c.conn, raw); err != nil {
		c.t.Fatal(err)
	}
}

// receive returns the bytes of the next reply or push.
func (c *client) receive() string {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		c.t.Fatal(err)
	}
	f, err := readFrame(c.r)
	if err != nil {
		c.t.Fatalf("receive: %v", err)
	}
	return string(f.raw)
}

// expect sends one command and wants that reply next.
func (c *client) expect(command, want string) {
	c.t.Helper()
	c.send(command)
	equal(c.t, c.receive(), want)
}

// silent wants nothing to come.
func (c *client) silent() {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(30 * time.Millisecond)); err != nil {
		c.t.Fatal(err)
	}
	if next, err := c.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("got %q, %v, want nothing", next, err)
	}
}

// gone wants the end of the connection.
func (c *client) gone() {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		c.t.Fatal(err)
	}
	if next, err := c.r.Peek(1); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("got %q, %v, want a closed connection", next, err)
	}
}

func command(name string) func([]string) bool {
	return func(args []string) bool { return strings.EqualFold(args[0], name) }
}

func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text) }

// invalidation is the push that ends the tracking of a key.
func invalidation(key string) string { return ">2\r\n" + bulk("invalidate") + "*1\r\n" + bulk(key) }

func TestFrames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		raw    string
		kind   byte
		fields []string
	}{
		{"+OK\r\n", '+', []string{"OK"}},
		{"+\r\n", '+', []string{""}},
		{"-ERR no\r\n", '-', []string{"ERR no"}},
		{":-7\r\n", ':', []string{"-7"}},
		{",3.14\r\n", ',', []string{"3.14"}},
		{",-inf\r\n", ',', []string{"-inf"}},
		{"#t\r\n", '#', []string{"t"}},
		{"(349285274983749287\r\n", '(', []string{"349285274983749287"}},
		{"_\r\n", '_', []string{}},
		{"$-1\r\n", '$', []string{}},
		{"*-1\r\n", '*', []string{}},
		{"*0\r\n", '*', []string{}},
		{"%0\r\n", '%', []string{}},
		{"$0\r\n\r\n", '$', []string{""}},
		{"$4\r\na\r\nb\r\n", '$', []string{"a\r\nb"}},
		{"=5\r\ntxt:x\r\n", '=', []string{"txt:x"}},
		{"!3\r\nERR\r\n", '!', []string{"ERR"}},
		{"*3\r\n:1\r\n*2\r\n$1\r\na\r\n$-1\r\n~1\r\n#f\r\n", '*', []string{"1", "a", "f"}},
		{"%2\r\n+k\r\n*1\r\n:1\r\n:2\r\n_\r\n", '%', []string{"k", "1", "2"}},
		{">2\r\n+invalidate\r\n_\r\n", '>', []string{"invalidate"}},
		{"|1\r\n+ttl\r\n:3\r\n$1\r\nv\r\n", '$', []string{"v"}},
		{"|1\r\n+a\r\n%1\r\n+b\r\n+c\r\n*2\r\n|1\r\n+ttl\r\n:3\r\n:1\r\n:2\r\n", '*', []string{"1", "2"}},
		{"+" + strings.Repeat("long", 5000) + "\r\n", '+', []string{strings.Repeat("long", 5000)}},
	} {
		r := bufio.NewReader(strings.NewReader(test.raw + "+next\r\n"))
		f, err := readFrame(r)
		if err != nil || string(f.raw) != test.raw || f.kind != test.kind {
			t.Errorf("%.60q: %.60q, %c, %v", test.raw, f.raw, f.kind, err)
		}
		equal(t, f.fields(), test.fields)
		if f, err = readFrame(r); string(f.raw) != "+next\r\n" || err != nil {
			t.Errorf("behind %.60q: %.60q, %v", test.raw, f.raw, err)
		}

		// Cut anywhere, it is the beginning of a frame.
		for n := range min(len(test.raw), 100) {
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			f, err := readFrame(bufio.NewReader(strings.NewReader(test.raw[:n])))
			if !errors.Is(err, want) || string(f.raw) != test.raw[:n] || f.kind != 0 {
				t.Errorf("%q: %q, %d, %v", test.raw[:n], f.raw, f.kind, err)
			}
		}
	}
	for _, raw := range []string{
		"\r\n", "hello\r\n", "*x\r\n", "$\r\n", "$-2\r\n", "*?\r\n", "$?\r\n", "$1\r\nabc\r\n", "*1\r\n/2\r\n",
		"$999999999999\r\n",
	} {
		if _, err := readFrame(bufio.NewReader(strings.NewReader(raw + "more\r\n"))); !errors.Is(err, errNotRESP) {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func TestProxyPassesEverythingUnchanged(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	commands := []string{
		"HELLO 2", "RPUSH list a b", "LRANGE list 0 -1", "LRANGE none 0 -1", "GET absent", "INCR list", "COMMAND DOCS get",
		"EVAL return{1,{'x',false},redis.error_reply('ERR_no')} 0",
		"MULTI", "GET list", "PING", "EXEC", "EXEC", "HELLO 3",
	}
	for _, kind := range strings.Fields("string integer double null array set map attrib push verbatim true false bignum") {
		commands = append(commands, "DEBUG PROTOCOL "+kind)
	}
	commands = append(commands, "ECHO done")

	var request strings.Builder
	request.WriteString("SET inline 1\r\n\r\nping\r\n*0\r\n")
	for _, c := range commands {
		request.WriteString(encode(strings.Fields(c)...))
	}
	answer := func(addr string) []byte {
		s.FlushAll(t)
		c := connect(t, addr)
		c.write(request.String())
		if err := c.conn.CloseWrite(); err != nil { // the server reads it all first
			t.Fatal(err)
		}
		raw, err := io.ReadAll(c.r)
		if err != nil {
			t.Fatal(err)
		}
		// HELLO tells the number of the connection.
		lines := bytes.Split(raw, []byte("\r\n"))
		for i := range lines {
			if string(lines[i]) == "id" {
				lines[i+1] = nil
			}
		}
		return bytes.Join(lines, []byte("\r\n"))
	}
	direct, proxied := answer(s.Addr()), answer(p.Addr())
	if !bytes.HasSuffix(direct, []byte("done\r\n")) || !bytes.Equal(direct, proxied) {
		t.Errorf("the server says\n%.5000q\nand behind the proxy\n%.5000q", direct, proxied)
	}
	equal(t, len(p.Commands()), len(commands)) // without a PING, with the SET
}

func TestProxyPassesBigValues(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	big := strings.Repeat("0123456789\r\n$5\r\nabc", 5<<20/19)
	c := connect(t, p.Addr())
	for range 3 {
		c.write(encode("SET", "big", big))
		equal(t, c.receive(), "+OK\r\n")
		c.send("GET big", "GET big")
		for range 2 {
			if got := c.receive(); got != bulk(big) {
				t.Fatalf("%d bytes came back as %d others", len(big), len(got))
			}
		}
	}
	logged := p.Log()[0]
	equal(t, logged, []string{"SET", "big", big[:200]})
}

func TestProxyCountsRoundTrips(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	c := tracking(t, p.Addr())
	equal(t, p.Requests(), 2) // HELLO, CLIENT TRACKING
	equal(t, p.Commands(), []string{"HELLO", "CLIENT"})

	p.ResetCounts()
	pipeline := make([]string, 100)
	for i := range pipeline {
		pipeline[i] = fmt.Sprint("incr n", i)
	}
	for round := 1; round <= 50; round++ {
		c.send(pipeline...)
		for range pipeline {
			equal(t, c.receive(), fmt.Sprintf(":%d\r\n", round))
		}
		equal(t, p.Requests(), round)
	}
	equal(t, len(p.Commands()), 5000)
	equal(t, p.Commands()[4999], "INCR")
	equal(t, p.Log()[4999], []string{"incr", "n99"})

	// One by one.
	p.ResetCounts()
	for range 7 {
		c.expect("GET k", "_\r\n")
	}
	equal(t, p.Requests(), 7)

	// A PING is nothing, before, within and after a burst.
	p.ResetCounts()
	c.expect("PING", "+PONG\r\n")
	c.send("GET k", "PING", "GET k")
	equal(t, c.receive()+c.receive()+c.receive(), "_\r\n+PONG\r\n_\r\n")
	c.expect("ping", "+PONG\r\n")
	equal(t, p.Requests(), 1)
	equal(t, p.Log(), [][]string{{"GET", "k"}, {"GET", "k"}})

	// A push between two commands is no reply.
	p.ResetCounts()
	replies := p.HoldReplies(command("BLPOP"))
	c.send("BLPOP list 0")
	p.Await(t, "BLPOP is sent", func() bool { return len(p.Commands()) == 1 })
	s.MustDo(t, "SET", "k", "1")
	equal(t, c.receive(), invalidation("k"))
	c.send("GET k")
	p.Await(t, "GET is sent", func() bool { return len(p.Commands()) == 2 })
	equal(t, p.Requests(), 1)
	s.MustDo(t, "RPUSH", "list", "x")
	replies.Wait(t)
	c.send("GET k") // the reply has not got to the client
	p.Await(t, "another GET is sent", func() bool { return len(p.Commands()) == 3 })
	equal(t, p.Requests(), 1)
	replies.Release()
	for range 3 {
		c.receive()
	}

	// Each connection counts for itself.
	p.ResetCounts()
	other := connect(t, p.Addr())
	hold := p.HoldReplies(nil)
	c.send("GET k")
	other.send("GET k")
	p.Await(t, "both replies are held", func() bool { return hold.Held() == 2 })
	equal(t, p.Requests(), 2)
	hold.Release()
}

func TestProxyHoldsRequests(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	one, two := connect(t, p.Addr()), connect(t, p.Addr())
	equal(t, s.MustDo(t, "SET", "k", "old"), "OK")

	g := p.HoldRequests(func(args []string) bool { return args[0] == "GET" && args[1] == "k" })
	equal(t, g.Held(), 0)
	one.send("GET other", "GET k", "SET behind 1", "GET k")
	g.Wait(t)
	equal(t, one.receive(), "$-1\r\n")
	equal(t, g.Held(), 2)
	two.expect("EXISTS behind", ":0\r\n") // another connection passes
	two.send("GET k")
	p.Await(t, "a second connection is held", func() bool { return g.Held() == 3 })
	equal(t, p.Commands(), []string{"GET", "EXISTS"})
	one.silent()

	s.MustDo(t, "SET", "k", "new")
	g.Release()
	equal(t, g.Held(), 0)
	equal(t, one.receive()+one.receive()+one.receive(), bulk("new")+"+OK\r\n"+bulk("new"))
	equal(t, two.receive(), bulk("new"))
	two.expect("GET k", bulk("new")) // the gate is gone
}

// Step by step: what a gate lets go stops at the next one, installed when it was at the proxy already.
func TestProxyGatesInARow(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	c := connect(t, p.Addr())

	first := p.HoldRequests(command("SET"))
	c.send("SET k 1", "INCR k", "INCR k", "INCR k")
	first.Wait(t)
	n := 0
	second := p.HoldRequests(func([]string) bool { n++; return n == 3 }) // the second INCR
	equal(t, second.Held(), 1)
	first.Release()
	equal(t, c.receive()+c.receive(), "+OK\r\n:2\r\n")
	c.silent()
	equal(t, s.MustDo(t, "GET", "k"), "2")
	second.Release()
	equal(t, c.receive()+c.receive(), ":3\r\n:4\r\n")
}

func TestProxyHoldsReplies(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	c := tracking(t, p.Addr())
	c.expect("GET k", "_\r\n")

	g := p.HoldReplies(command("GETDEL"))
	c.send("GETDEL none", "ECHO behind")
	g.Wait(t)
	s.MustDo(t, "SET", "k", "1") // its push waits behind the reply
	c.silent()
	p.Await(t, "both are sent", func() bool { return len(p.Commands()) == 5 })
	g.Release()
	equal(t, c.receive()+c.receive()+c.receive(), "_\r\n"+bulk("behind")+invalidation("k"))

	// A transaction has a reply for each of its commands.
	for _, name := range []string{"MULTI", "INCR", "PING", "EXEC"} {
		g := p.HoldReplies(command(name))
		c.send("MULTI", "INCR n", "PING", "EXEC", "ECHO behind")
		want := []string{"+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n:", bulk("behind")}
		for i, command := range []string{"MULTI", "INCR", "PING", "EXEC", "ECHO"} {
			if command == name {
				g.Wait(t)
				c.silent()
				g.Release()
			}
			if got := c.receive(); !strings.HasPrefix(got, want[i]) {
				t.Fatalf("%s: %q, want %q", command, got, want[i])
			}
		}
	}
}

func TestProxyPairsSubscriptions(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"2", "3"} {
		t.Run("RESP"+version, func(t *testing.T) {
			t.Parallel()
			s := Start(t)
			p := StartProxy(t, s.Addr())
			c := connect(t, p.Addr())
			c.send("HELLO " + version)
			c.receive()

			// The replies to one command are held, those to the one before and the messages are not.
			var seen [][]string
			look := p.HoldReplies(func(args []string) bool { seen = append(seen, args); return false })
			g := p.HoldReplies(func(args []string) bool { return len(args) > 1 && args[1] == "c" })
			held := []string{"message", "a", "held"}
			messages := p.HoldPushes(func(push []string) bool { return slices.Equal(push, held) })
			c.send("SUBSCRIBE a b", "PSUBSCRIBE p*", "SUBSCRIBE c", "SUBSCRIBE",
				"UNSUBSCRIBE a", "UNSUBSCRIBE", "UNSUBSCRIBE", "PING")
			equal(t, strings.Contains(c.receive()+c.receive()+c.receive(), "psubscribe"), true)
			g.Wait(t)
			g.Release()
			for i := range 6 { // c, an error, a, two of b and c, and none
				got := c.receive()
				if i == 1 {
					equal(t, got[0], byte('-'))
				} else {
					equal(t, strings.Contains(got, "subscribe"), true)
				}
			}
			equal(t, strings.Contains(strings.ToLower(c.receive()), "pong"), true)

			c.send("SUBSCRIBE a")
			c.receive()
			s.MustDo(t, "PUBLISH", "a", "passes")
			equal(t, strings.Contains(c.receive(), "passes"), true)
			s.MustDo(t, "PUBLISH", "a", "held")
			messages.Wait(t)
			c.silent()
			messages.Release()
			equal(t, strings.Contains(c.receive(), "held"), true)
			c.send("RESET", "GET k")
			equal(t, c.receive(), "+RESET\r\n")
			c.receive()
			look.Release()

			want := [][]string{{"SUBSCRIBE", "a", "b"}, {"SUBSCRIBE", "a", "b"}, {"PSUBSCRIBE", "p*"}, {"SUBSCRIBE", "c"},
				{"SUBSCRIBE"}, {"UNSUBSCRIBE", "a"}, {"UNSUBSCRIBE"}, {"UNSUBSCRIBE"}, {"UNSUBSCRIBE"}, {"PING"},
				{"SUBSCRIBE", "a"}, {"RESET"}, {"GET", "k"}}
			equal(t, seen, want)
		})
	}
}

func TestProxyHoldsPushes(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	c := tracking(t, p.Addr())
	c.send("GET held", "GET other")
	c.receive()
	c.receive()

	var seen [][]string
	g := p.HoldPushes(func(push []string) bool { seen = append(seen, push); return slices.Contains(push, "held") })
	s.MustDo(t, "SET", "other", "1")
	equal(t, c.receive(), invalidation("other"))
	s.MustDo(t, "SET", "held", "1")
	g.Wait(t)
	c.send("GET held") // the reply waits behind the push
	c.silent()
	g.Release()
	equal(t, c.receive()+c.receive(), invalidation("held")+bulk("1"))
	equal(t, seen, [][]string{{"invalidate", "other"}, {"invalidate", "held"}})

	g = p.HoldPushes(func(push []string) bool { return len(push) == 1 })
	s.FlushAll(t)
	g.Wait(t)
	g.Release()
	equal(t, c.receive(), ">2\r\n"+bulk("invalidate")+"_\r\n")
}

func TestProxyDropsPushes(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	c := tracking(t, p.Addr())
	get := func() { c.send("GET k", "GET l"); c.receive(); c.receive() }

	get()
	stop := p.DropPushes(func(push []string) bool { return slices.Contains(push, "k") })
	s.MustDo(t, "MSET", "k", "1", "l", "1")
	equal(t, c.receive(), invalidation("l"))
	equal(t, p.DroppedPushes(), 1)
	stop()
	stop() // twice is once

	get()
	s.MustDo(t, "SET", "k", "2")
	equal(t, c.receive(), invalidation("k"))
	equal(t, p.DroppedPushes(), 1)

	// One that a gate holds is dropped as well.
	get()
	g := p.HoldPushes(nil)
	s.MustDo(t, "MSET", "k", "3", "l", "3")
	p.Await(t, "two pushes are held", func() bool { return g.Held() == 2 })
	defer p.DropPushes(func(push []string) bool { return slices.Contains(push, "k") })()
	equal(t, g.Held(), 1)
	equal(t, p.DroppedPushes(), 2)
	g.Release()
	equal(t, c.receive(), invalidation("l"))
	p.ResetCounts()
	equal(t, p.DroppedPushes(), 0)
}

func TestProxyDelays(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	c := connect(t, p.Addr())
	c.expect("INCR n", ":1\r\n")

	const delay, n = 100 * time.Millisecond, 100
	p.SetDelay(delay)
	began, allowed := time.Now(), Allowing(t)
	g := p.HoldRequests(nil) // tells what has arrived
	for i := range n {       // each by itself
		if i == n/2 {
			p.Await(t, "the first half is there", func() bool { return g.Held() == n/2 })
			p.SetDelay(delay / 2) // these do not overtake
		}
		c.send("INCR n")
	}
	g.Release()
	for i := range n {
		equal(t, c.receive(), fmt.Sprintf(":%d\r\n", i+2))
		if took := time.Since(began); i == 0 && took < delay+delay/2 {
			t.Errorf("the first reply after %v, with %v and %v to go", took, delay, delay/2)
		}
	}
	if took := time.Since(began); took > allowed(n*delay/2) {
		t.Errorf("%d commands took %v: a delay each", n, took)
	}
	p.SetDelay(0)
	c.expect("INCR n", fmt.Sprintf(":%d\r\n", n+2))
}

func TestProxyBlackhole(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	c, leaver := connect(t, p.Addr()), connect(t, p.Addr())
	c.expect("INCR n", ":1\r\n")
	leaver.expect("INCR n", ":2\r\n")

	p.Blackhole(true)
	c.send("INCR n")
	fresh := connect(t, p.Addr())
	fresh.send("INCR n")
	leaver.send("INCR n")
	leaver.conn.Close()
	c.silent()
	fresh.silent()
	equal(t, s.MustDo(t, "GET", "n"), "2")
	p.Await(t, "three connections", func() bool { return p.Connections() == 3 })
	p.Blackhole(false)
	equal(t, c.receive()[0], byte(':'))
	equal(t, fresh.receive()[0], byte(':'))
	p.Await(t, "the connection that was closed is gone", func() bool { return p.Connections() == 2 })
	equal(t, s.MustDo(t, "GET", "n"), "5") // the late command of a client long gone

	p.BlackholeReplies(true)
	c.send("INCR n")
	p.Await(t, "INCR is sent", func() bool { return len(p.Commands()) == 6 })
	c.silent()
	equal(t, s.MustDo(t, "GET", "n"), "6")
	p.BlackholeReplies(false)
	equal(t, c.receive(), ":6\r\n")
}

func TestProxyClosesConnections(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	equal(t, p.Connections(), 0)
	one, two := connect(t, p.Addr()), connect(t, p.Addr())
	one.expect("PING", "+PONG\r\n")
	two.expect("PING", "+PONG\r\n")
	equal(t, p.Connections(), 2)

	g := p.HoldRequests(nil)
	one.send("SET k 1")
	g.Wait(t)
	p.CloseConnections()
	equal(t, p.Connections(), 0)
	equal(t, g.Held(), 0)
	one.gone()
	two.gone()
	g.Release()
	equal(t, s.MustDo(t, "GET", "k"), nil)

	p.Refuse(true)
	connect(t, p.Addr()).gone()
	equal(t, p.Connections(), 0)
	p.Refuse(false)
	three := connect(t, p.Addr())
	three.expect("PING", "+PONG\r\n")

	// Either end may close.
	three.conn.Close()
	p.Await(t, "the client has closed", func() bool { return p.Connections() == 0 })
	four := connect(t, p.Addr())
	four.expect("PING", "+PONG\r\n")
	four.send("QUIT")
	equal(t, four.receive(), "+OK\r\n")
	four.gone()
	five := connect(t, p.Addr())
	five.expect("PING", "+PONG\r\n")
	s.Kill()
	five.gone()
	connect(t, p.Addr()).gone() // nobody is there
	s.Restart()
	connect(t, p.Addr()).expect("PING", "+PONG\r\n")
}

// A server that dies in the middle of a reply leaves the client with a part of it.
func TestProxyPassesBrokenFrames(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tb := &recorder{TB: t}
	p := StartProxy(tb, l.Addr().String())
	for _, sent := range []string{"$-1\r\n*2\r\n$5\r\nhal", "+OK\r\n?what\r\n"} {
		c := connect(t, p.Addr())
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(server, sent); err != nil {
			t.Fatal(err)
		}
		server.Close()
		if err := c.conn.SetReadDeadline(time.Now().Add(Patience)); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c.r)
		equal(t, err, nil)
		equal(t, string(got), sent)
	}
	p.Close()
	if !strings.Contains(tb.failed, "not RESP") {
		t.Errorf("reported %q", tb.failed)
	}
}

func TestProxyGivesUpWaiting(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	connect(t, p.Addr()).expect("GET k", "$-1\r\n")
	g := p.HoldPushes(nil)
	g.Release()
	tb := &recorder{TB: t}
	tb.run(func() { g.Wait(tb) })
	if !strings.Contains(tb.fatal, "released") {
		t.Errorf("Wait ended with %q", tb.fatal)
	}
}

// Not parallel: no other test's proxy is about.
func TestProxyLeavesNoGoroutine(t *testing.T) {
	t.Run("proxies", func(t *testing.T) {
		s := Start(t)
		p := StartProxy(t, s.Addr())
		StartProxy(t, s.Addr()) // nobody comes
		StartProxy(t, s.Addr()).Close()
		g := p.HoldRequests(command("GET"))
		r := p.HoldReplies(command("ECHO"))
		var wg sync.WaitGroup
		for i := range 20 {
			c := connect(t, p.Addr())
			wg.Go(func() {
				c.expect("INCR n"+fmt.Sprint(i), ":1\r\n")
				c.send("ECHO x", "GET k")
			})
		}
		wg.Wait()
		p.Await(t, "all are held", func() bool { return g.Held() == 20 && r.Held() == 20 })
		p.SetDelay(time.Hour)
		connect(t, p.Addr()).send("GET k")
		p.Await(t, "one more connection", func() bool { return p.Connections() == 21 })
	})
	deadline := time.Now().Add(Patience)
	for {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if !slices.ContainsFunc([]string{"*Proxy", "*proxyConn", "*stream"}, func(of string) bool {
			return bytes.Contains(stacks, []byte("redistest.("+of+")"))
		}) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("goroutines are left:\n%s", stacks)
		}
		time.Sleep(pollInterval)
	}
}

package redistest

import (
	"fmt"
	"testing"
	"time"
)

func TestProxySendsApart(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	asked := make(chan struct{}, 10)
	// What is behind the first command waits until the test is over, but for Close.
	p.SendApart(func(args []string) time.Duration {
		if args[0] != "SET" {
			return 0
		}
		asked <- struct{}{}
		return time.Hour
	})
	c := connect(t, p.Addr())
	c.send("GET k", "SET k v", "GET k")
	equal(t, c.receive(), "$-1\r\n")
	equal(t, c.receive(), "+OK\r\n")
	c.silent()
	<-asked
	equal(t, p.Cuts(), 1)
	equal(t, len(p.Commands()), 2)
}

func TestProxyJitterKeepsTheOrder(t *testing.T) {
	t.Parallel()
	s := Start(t)
	p := StartProxy(t, s.Addr())
	p.SetJitter(5*time.Millisecond, 5*time.Millisecond)
	c := connect(t, p.Addr())
	for range 20 {
		c.send("INCR n")
	}
	for i := range 20 {
		equal(t, c.receive(), fmt.Sprintf(":%d\r\n", i+1))
	}
	if p.Jittered() == 0 {
		t.Fatal("nothing was kept back")
	}
}

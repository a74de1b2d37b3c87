package coherence_test

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

type heldConn struct{ net.Conn }

// A process that loses its connection often must not grow for it.
func TestWhatABrokenConnectionHeldIsFreed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	var dialed, freed atomic.Int64
	o := asidetest.At(proxy.Addr())
	o.Redis.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		held := &heldConn{conn}
		runtime.AddCleanup(held, func(struct{}) { freed.Add(1) }, struct{}{})
		dialed.Add(1)
		return held, nil
	}
	c := asidetest.Connected(t, o)
	first := dialed.Load()
	proxy.CloseConnections()
	asidetest.Eventually(t, "another connection is in use", func() bool {
		return dialed.Load() > first && c.Health().State == aside.StateConnected
	})
	asidetest.Eventually(t, "the first ones are freed", func() bool { runtime.GC(); return freed.Load() >= first })
	asidetest.Eventually(t, "the other one is still in use", func() bool { return c.Health().State == aside.StateConnected })
}

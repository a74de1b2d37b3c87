package asidetest

import (
	"strings"
	"testing"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// A Watched cache asks its server through a proxy that counts.
type Watched struct {
	*aside.Cache
	Proxy *redistest.Proxy
}

func Watch(t *testing.T, server *redistest.Server) Watched {
	t.Helper()
	return WatchedAs(t, server, At)
}

func WatchedAs(t *testing.T, server *redistest.Server, options func(addr string) aside.Options) Watched {
	t.Helper()
	proxy := redistest.StartProxy(t, server.Addr())
	return Watched{Connected(t, options(proxy.Addr())), proxy}
}

// Asked returns the commands of one kind that were sent, without their names.
func (w Watched) Asked(name string) (args [][]string) {
	for _, command := range w.Proxy.Log() {
		if strings.EqualFold(command[0], name) {
			args = append(args, command[1:])
		}
	}
	return args
}

package asidetest

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// RedisAt is options of a cache whose server nobody will answer for: enough to see what New says to them.
func RedisAt(change func(*rueidis.ClientOption)) aside.Options {
	r := rueidis.ClientOption{InitAddress: []string{"127.0.0.1:6379"}}
	change(&r)
	return aside.Options{Redis: r}
}

func Nowhere(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
	return nil, errors.New("nobody is there")
}

// WhileUncut is a dialer that reaches nobody while cut is set.
func WhileUncut(cut *atomic.Bool) func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
	return func(ctx context.Context, addr string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
		if cut.Load() {
			return Nowhere(ctx, addr, d, c)
		}
		return d.DialContext(ctx, "tcp", addr)
	}
}

var RedisVariables = []string{"REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_DB", "REDIS_TLS"}

// Environment sets these variables, and of ours no other.
func Environment(t *testing.T, env map[string]string) {
	for _, name := range RedisVariables {
		t.Setenv(name, "")
		if v, ok := env[name]; ok {
			t.Setenv(name, v)
		} else {
			require.NoError(t, os.Unsetenv(name)) // t puts it back
		}
	}
}

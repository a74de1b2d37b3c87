package asidetest

import (
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/rueidis"

	"github.com/gatewayz/aside"
)

// A Redis is a server in the process of a test, which caches can use as their Redis. It fails on request: see Down, Hang and Slow. All its methods may be
// used by many goroutines at once.
//
// It is a miniredis. It has the commands that the cache uses, and no client tracking: like some services, it pushes no changes. Caches then notify
// each other of their changes, and memory keeps what it has read for a second at most (Health says so). So a test on it shows what the program
// does on Redis, during an outage and after it, and that its values survive their codecs. It does not show times, memory, clusters, TLS, nor the
// rights of a Redis user. Test these on the Redis that you use.
type Redis struct {
	proxy *proxy
}

// ageEvery is how often the server's TTLs are made shorter: miniredis does not do so by itself.
const ageEvery = 20 * time.Millisecond

// NewRedis starts a Redis. It ends with the test.
func NewRedis(t testing.TB) *Redis {
	t.Helper()
	mini := miniredis.NewMiniRedis()
	if err := mini.Start(); err != nil {
		t.Fatalf("asidetest: NewRedis: %v", err)
		return nil
	}
	mini.Server().SetPreHook(noCluster)
	p, err := startProxy(mini.Addr())
	if err != nil {
		mini.Close()
		t.Fatalf("asidetest: NewRedis: %v", err)
		return nil
	}
	over, aged := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(aged)
		age(mini, over)
	}()
	t.Cleanup(func() {
		close(over)
		<-aged
		p.close()
		mini.Close()
	})
	return &Redis{p}
}

// noCluster answers as a server does that is not part of a cluster. miniredis would say that it is one, and name its own address: clients would go there,
// past the proxy.
func noCluster(to *server.Peer, command string, _ ...string) (answered bool) {
	if !strings.EqualFold(command, "CLUSTER") {
		return false
	}
	to.WriteError("ERR This instance has cluster support disabled")
	return true
}

// age makes the TTLs of the server's keys shorter as time passes, until over is closed.
func age(mini *miniredis.Miniredis, over <-chan struct{}) {
	tick := time.NewTicker(ageEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
			now := time.Now()
			mini.FastForward(now.Sub(last))
			last = now
		}
	}
}

// Addr returns the address of the Redis, for other clients and for the program's own configuration (REDIS_URL: "redis://" + Addr()).
func (r *Redis) Addr() string { return r.proxy.addr() }

// Options returns options for a cache on this Redis. They have an OpTimeout of 5 s, and wait longer than usual for a silent server, so that a test does not
// fail because its machine is busy. With them, a server that hangs is noticed after 2.5 s, and a slow one is waited for: set a shorter
// OpTimeout in tests of Hang and Slow, such as the one of your program.
func (r *Redis) Options() aside.Options {
	o := aside.Options{
		Redis:     rueidis.ClientOption{InitAddress: []string{r.Addr()}, ForceSingleClient: true, ConnWriteTimeout: 2500 * time.Millisecond},
		OpTimeout: 5 * time.Second,
	}
	o.Redis.Dialer.KeepAlive = 250 * time.Millisecond // with which so long a ConnWriteTimeout is allowed
	return o
}

// Down begins an outage: all connections are closed, and new ones are closed at once. The server keeps its values.
func (r *Redis) Down() { r.proxy.set(down, 0) }

// Hang begins an outage in which connections stay open, and new ones are accepted, but nothing is answered. What is sent meanwhile arrives at its end.
func (r *Redis) Hang() { r.proxy.set(hanging, 0) }

// Slow makes each answer come later by d. It ends an outage.
func (r *Redis) Slow(d time.Duration) { r.proxy.set(up, d) }

// Up ends what Down, Hang and Slow have begun. A cache connects again within a second or so: wait for that with aside's Cache.Ready.
func (r *Redis) Up() { r.proxy.set(up, 0) }

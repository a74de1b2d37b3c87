package asidetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside"
)

// Here another process is another operating-system process.

const (
	Members    = 8
	Callers    = 1000 // of each member
	MemberLoad = 200 * time.Millisecond
)

var errMember = errors.New("the source is down")

// memberProcess asks for one key from many goroutines at once, when its standard input is closed, and prints how often it
// has loaded, how long the slowest caller has waited, and its troubles.
func memberProcess() {
	c := processCache()
	defer c.Close()
	fails := os.Getenv("FAILS") != ""
	var loads, slowest atomic.Int64
	load := func(context.Context) (string, error) {
		loads.Add(1)
		time.Sleep(MemberLoad) // the load
		if fails {
			return "", errMember
		}
		return "v", nil
	}
	ask := func() {
		began := time.Now()
		v, err := aside.GetOrLoad(context.Background(), c, Items.Key("held"), load)
		if fails != errors.Is(err, errMember) || !fails && v != "v" {
			panic(fmt.Sprint(v, err))
		}
		took := int64(time.Since(began))
		for old := slowest.Load(); took > old && !slowest.CompareAndSwap(old, took); old = slowest.Load() {
		}
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	var wg sync.WaitGroup
	for range Callers {
		wg.Go(ask)
	}
	wg.Wait()
	for end := time.Now().Add(300 * time.Millisecond); fails && time.Now().Before(end); {
		ask()
	}
	fmt.Println(loads.Load(), slowest.Load(), troubles(c))
}

// troubles counts what Redis did not do in time, and what was lost with a connection: one load for all is promised without these.
func troubles(c *aside.Cache) uint64 {
	m := c.Metrics()
	items := m.Labels["items"]
	return m.RedisErrors + m.TrackingLost + items.RedisErrors + items.Fallbacks
}

func open(o aside.Options) *aside.Cache {
	c, err := aside.New(o)
	if err != nil {
		panic(err)
	}
	for c.Health().State != aside.StateConnected {
		time.Sleep(time.Millisecond)
	}
	return c
}

// holderProcess takes the lease of a key, and loads for ever.
func holderProcess() {
	c := processCache()
	_, _ = aside.GetOrLoad(context.Background(), c, Items.Key("held"), func(context.Context) (string, error) {
		fmt.Println("loading")
		select {}
	})
}

// followerProcess reads keys, from memory most of the time, and notes when it has seen each version last. It keeps a core
// busy, with readers who wait for something else now and then; with SATURATE, with readers who never do.
func followerProcess() {
	c := processCache()
	defer c.Close()
	raw, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{getenv("ADDR")}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		panic(err)
	}
	defer raw.Close()
	seen := make([]map[int64]int64, Followed) // key -> version -> when memory has served it last
	var over atomic.Bool
	var wg sync.WaitGroup
	for k := range seen {
		seen[k] = map[int64]int64{}
		wg.Go(func() {
			load := func(ctx context.Context) (int64, error) {
				return raw.Do(ctx, raw.B().Get().Key(SourceKey(k)).Build()).AsInt64()
			}
			for n := 0; !over.Load(); n++ {
				if n%100 == 0 && os.Getenv("SATURATE") == "" {
					time.Sleep(100 * time.Microsecond) // as for a client's next request
				}
				r, err := aside.Lookup(context.Background(), c, Items.Key(k), load)
				if err != nil {
					panic(err)
				}
				if r.Tier == aside.TierMemory {
					seen[k][r.Value] = time.Now().UnixNano()
				}
			}
		})
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	over.Store(true)
	wg.Wait()
	out := bufio.NewWriter(os.Stdout)
	for k, versions := range seen {
		for v, at := range versions {
			fmt.Fprintln(out, k, v, at)
		}
	}
	fmt.Fprintln(out, "end")
	out.Flush()
}

const Followed = 4

func SourceKey(k int) string { return "source " + strconv.Itoa(k) }

package asidetest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside"
)

// The processes below ask at once, and end.

func briefOptions() aside.Options {
	o := At(getenv("ADDR"))
	o.Redis.ForceSingleClient, o.Logger = false, Quiet()
	d, err := time.ParseDuration(getenv("OPTIMEOUT"))
	if err != nil {
		panic(err)
	}
	o.OpTimeout = d
	return o
}

// briefProcess loads a value where it is not there, and prints how that was.
func briefProcess() {
	c, err := aside.New(briefOptions())
	if err != nil {
		panic(err)
	}
	r, err := aside.Lookup(context.Background(), c, Items.Key(getenv("KEY")), Value("loaded"))
	c.Close()
	fmt.Println(r.Value, r.Status, err)
}

// herdProcess makes many caches at once, each of which is asked for the same key at once, and prints how many of them have loaded,
// and their troubles.
func herdProcess() {
	n, err := strconv.Atoi(getenv("CACHES"))
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	var loads atomic.Int64
	var trouble atomic.Uint64
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			c, err := aside.New(briefOptions())
			if err != nil {
				panic(err)
			}
			defer c.Close()
			v, err := aside.GetOrLoad(context.Background(), c, Items.Key("herd"), func(context.Context) (string, error) {
				loads.Add(1)
				time.Sleep(MemberLoad)
				return "v", nil
			})
			if err != nil || v != "v" {
				panic(fmt.Sprint(v, err))
			}
			trouble.Add(troubles(c))
		})
	}
	all.Wait()
	fmt.Println(loads.Load(), trouble.Load())
}

// Sweep shows how long it takes to remove the values of an invalidated category from Redis, and how another client's GETs fare beside that. It
// starts the server, or with -cluster three primaries with a replica each. It ends with status 1 where a value was left.
package main

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/gatewayz/aside/internal/redistest"
)

func main() {
	var c config
	flag.IntVar(&c.keys, "keys", 1_000_000, "how many values there are")
	flag.IntVar(&c.size, "size", 100, "bytes of each payload")
	flag.BoolVar(&c.cluster, "cluster", false, "on a cluster")
	flag.DurationVar(&c.quiet, "quiet", 2*time.Second, "how long GETs are measured without a sweep first")
	flag.Parse()
	var r report
	err := redistest.During(func(t testing.TB) { r = measure(t, c) })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%s; load average %s\n", r, redistest.LoadAverage())
}

package asidetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/gatewayz/aside"
)

// WarmerLease is the LeaseTTL of a warmerProcess.
const WarmerLease = time.Second

// warmerProcess warms IDS ids of Items, under the name NAME if there is one. It prints "load N" before each load of N ids, "seen N" after each
// batch, and at the end what became of the ids, or "lost" where another one has its name.
func warmerProcess() {
	o := At(getenv("ADDR"))
	o.Logger, o.LeaseTTL = Quiet(), WarmerLease
	c := open(o)
	defer c.Close()
	n, err := strconv.Atoi(getenv("IDS"))
	if err != nil {
		panic(err)
	}
	ids := func(yield func(int) bool) {
		for id := range n {
			if !yield(id) {
				return
			}
		}
	}
	load := func(_ context.Context, ids []int) (map[int]string, error) {
		fmt.Println("load", len(ids))
		values := make(map[int]string)
		for _, id := range ids {
			values[id] = "value " + strconv.Itoa(id)
		}
		return values, nil
	}
	warmed, err := aside.Warm(context.Background(), c, ids, func(id int) aside.Key { return Items.Key(id) }, load, aside.Warming{
		Name: os.Getenv("NAME"), Progress: func(w aside.Warmed) { fmt.Println("seen", w.Seen) },
	})
	switch {
	case errors.Is(err, &aside.Error{Code: aside.CodeUnavailable}):
		fmt.Println("lost")
		return
	case err != nil:
		panic(err)
	}
	fmt.Println("done", warmed.Seen, warmed.Failed, warmed.Elsewhere)
}

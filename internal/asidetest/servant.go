package asidetest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/gatewayz/aside"
)

// servantProcess has a cache of its own and does what it is told, a line at a time: "lookup ID VALUE" looks up a key whose
// loader gives VALUE, and answers with what it got; "invalidate ID" answers whether that was confirmed.
func servantProcess() {
	c := processCache()
	defer c.Close()
	fmt.Println("ready")
	ctx := context.Background()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		words := strings.Fields(in.Text())
		switch words[0] {
		case "lookup":
			loads := 0
			r, err := aside.Lookup(ctx, c, Items.Key(words[1]), func(context.Context) (string, error) { loads++; return words[2], nil })
			if err != nil {
				panic(err)
			}
			fmt.Println(r.Value, r.Status, r.Tier, r.TTL.Milliseconds(), loads)
		case "invalidate":
			receipt, err := c.Invalidate(ctx, Items.Key(words[1]))
			if err != nil {
				panic(err)
			}
			fmt.Println(receipt.Confirmed)
		}
	}
}

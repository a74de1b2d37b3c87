package asidetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/gatewayz/aside"
)

type Credits struct{ Balance int }

// strangerProcess answers a line at a time: "credits ID" with what a lookup of that user's credits gives, "plain ID" and "private ID"
// with those of the policies of that name, and "absent ID" with the error of a Get.
func strangerProcess() {
	c := processCache()
	defer c.Close()
	fmt.Println("ready")
	ctx := context.Background()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		words := strings.Fields(in.Text())
		var answer any
		switch words[0] {
		case "credits":
			r, err := aside.Lookup(ctx, c, aside.TTL.UserCredits.Key(words[1]), func(context.Context) (Credits, error) { return Credits{7}, nil })
			answer = []any{r.Value, r.Status, fmt.Sprint(err)}
		case "absent":
			_, err := aside.Get[string](ctx, c, Items.Key(words[1]))
			answer = []any{errors.Is(err, aside.ErrNotFound), fmt.Sprint(err)}
		case "int64":
			v, err := aside.Get[int64](ctx, c, Items.Key(words[1]))
			answer = []any{v, fmt.Sprint(err)}
		}
		line, err := json.Marshal(answer)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
}

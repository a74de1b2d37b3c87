package asidetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/gatewayz/aside"
)

// RacedTTL is the TTL of what is raced for: a value that may be served on soon has to be loaded anew.
const RacedTTL = 30 * time.Millisecond

// RacedLater is the TTL of the values of later loads. They are not loaded anew.
const RacedLater = 10 * time.Second

// RacedPolicy is a policy with a category of its own. Its values do not stay in Redis for long, so that a sweep looks at few keys.
func RacedPolicy(slot int, codec aside.Codec) *aside.Policy {
	p := LanePolicy(slot)
	p.TTL, p.Stale, p.Codec = RacedTTL, 10*time.Second, codec
	return p
}

func RacedTag(slot int) string { return fmt.Sprint("raced ", slot) }

// A RacedCodec stores strings. Encoding, if there is one, sees each value before it is encoded, and may keep it back.
type RacedCodec struct{ Encoding func(value string) }

func (*RacedCodec) Name() string { return "raced" }

func (c *RacedCodec) Marshal(v any) ([]byte, error) {
	if c.Encoding != nil {
		c.Encoding(*v.(*string))
	}
	return []byte(*v.(*string)), nil
}

func (*RacedCodec) Unmarshal(data []byte, v any) error {
	*v.(*string) = string(data)
	return nil
}

// A Raced is one key.
type Raced struct {
	Slot int
	ID   string
}

// A RacerOrder is for a Racer: "get", "told", "key", "tag", "category", "read" or "strong". A loader gives New.
type RacerOrder struct {
	Do  string
	All []Raced
	New string
}

// A Racer invalidates and reads, in this process or in another one.
type Racer interface {
	// Obey returns an answer for each key: the value, or "confirmed".
	Obey(o RacerOrder) []string
}

// A LocalRacer has a cache of this process.
type LocalRacer struct {
	Cache    *aside.Cache
	Policies map[int]*aside.Policy // by slot
}

func (r LocalRacer) Obey(o RacerOrder) []string {
	answers := make([]string, len(o.All))
	var all sync.WaitGroup
	if o.Do == "told" {
		others := aside.Policy{Name: "others", Category: "others", TTL: time.Hour}
		if _, err := aside.Get[string](context.Background(), r.Cache, others.Key("none")); !errors.Is(err, aside.ErrMiss) {
			return []string{fmt.Sprint("error: ", err)}
		}
		return nil
	}
	for i, k := range o.All {
		all.Go(func() {
			var err error
			if answers[i], err = r.one(o, k); err != nil {
				answers[i] = "error: " + err.Error()
			}
		})
	}
	all.Wait()
	return answers
}

func (r LocalRacer) one(o RacerOrder, k Raced) (answer string, err error) {
	ctx, key := context.Background(), r.Policies[k.Slot].Key(k.ID)
	var receipt aside.Receipt
	switch o.Do {
	case "get":
		return aside.Get[string](ctx, r.Cache, key)
	case "read", "strong":
		opts := []aside.CallOption{aside.WithTags(RacedTag(k.Slot)), aside.WithTTL(RacedLater)}
		if o.Do == "strong" {
			opts = append(opts, aside.Strong())
		}
		return aside.GetOrLoad(ctx, r.Cache, key, func(context.Context) (string, error) { return o.New, nil }, opts...)
	case "key":
		receipt, err = r.Cache.Invalidate(ctx, key)
	case "tag":
		receipt, err = r.Cache.InvalidateTags(ctx, RacedTag(k.Slot))
	case "category":
		receipt, err = r.Cache.InvalidateCategory(ctx, r.Policies[k.Slot].Category)
	default:
		err = fmt.Errorf("%q is no order", o.Do)
	}
	if err == nil && !receipt.Confirmed {
		err = errors.New("not confirmed")
	}
	return "confirmed", err
}

// racerProcess is a Racer of its own: it gets an order in each line, and answers in another one.
func racerProcess() {
	c := processCache()
	defer c.Close()
	r, codec := LocalRacer{c, make(map[int]*aside.Policy)}, new(RacedCodec)
	for slot := range 64 {
		r.Policies[slot] = RacedPolicy(slot, codec)
	}
	fmt.Println("ready")
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var o RacerOrder
		if err := json.Unmarshal(line, &o); err != nil {
			panic(err)
		}
		if err := out.Encode(r.Obey(o)); err != nil {
			panic(err)
		}
	}
}

package asidetest

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gatewayz/aside"
)

type (
	HTTPBody []byte
	Label    string
)

// Plain are values that no codec is named for, and what is stored is what is returned.
func Plain() []any {
	return []any{"caf\xe9", Label("\xff\x00"), []byte{}, []byte(nil), HTTPBody("\x00\xff"), HTTPBody(nil), json.RawMessage(nil), json.RawMessage(` {"a" : 1}`), ""}
}

// plainProcess prints what it reads in Redis.
func plainProcess() {
	c := processCache()
	defer c.Close()
	for i, v := range Plain() {
		got, err := GetPlain(context.Background(), c, Items.Key("plain", i), v)
		fmt.Printf("%#v %v\n", got, err)
	}
}

func GetPlain(ctx context.Context, c *aside.Cache, key aside.Key, like any) (any, error) {
	switch like.(type) {
	case string:
		return aside.Get[string](ctx, c, key)
	case Label:
		return aside.Get[Label](ctx, c, key)
	case HTTPBody:
		return aside.Get[HTTPBody](ctx, c, key)
	case json.RawMessage:
		return aside.Get[json.RawMessage](ctx, c, key)
	}
	return aside.Get[[]byte](ctx, c, key)
}

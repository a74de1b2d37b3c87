package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/gatewayz/aside"
)

var hashVerb = verb{
	name: "hash", arguments: "ID...", does: "Cache.HashID of ids: what stands in keys in place of a user's id",
	details: `
ASIDE_SECRET is the program's Options.Secret. Without it the hash is the one of a program
without a secret. With it the keys of a user can be found:

    aside list "sessions:$(aside hash alice@example.com):*"`,
	prepare: func(*flag.FlagSet) action { return hash },
}

func hash(_ context.Context, c *call) error {
	if len(c.args) == 0 {
		return usage("give an id, behind a -- if it begins with a hyphen")
	}
	secret := os.Getenv("ASIDE_SECRET")
	cache, err := aside.New(aside.Options{Secret: aside.NewSecret(secret), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return usage("ASIDE_SECRET: %v", err)
	}
	defer cache.Close()
	if secret == "" {
		fmt.Fprintln(c.err, "aside hash: ASIDE_SECRET is not set: this is the hash of a program without Options.Secret")
	}
	hashes := map[string]string{}
	for _, id := range c.args {
		hashes[id] = cache.HashID(id)
		if !c.json {
			fmt.Fprintln(c.out, hashes[id])
		}
	}
	if c.json {
		return writeJSON(c, hashes)
	}
	return nil
}

package asidetest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

// Waiting calls GetOrLoad and returns, with the place where its value will be, when that has joined a load or leads one, or
// is over already.
func Waiting(t *testing.T, c *aside.Cache, key aside.Key, load func(context.Context) (string, error), opts ...aside.CallOption) <-chan string {
	t.Helper()
	got, joined := make(chan string, 1), make(chan struct{})
	ctx := &Signalling{Context: t.Context(), Waited: joined}
	go func() {
		v, err := aside.GetOrLoad(ctx, c, key, load, opts...)
		if err != nil {
			v = err.Error()
		}
		ctx.Done()
		got <- v
	}()
	<-joined
	return got
}

// AllTold returns when c has heard all that its server had to tell by now: pushes have their place among the replies of
// their connection. It reads no tag of the policy items.
func AllTold(t *testing.T, c *aside.Cache) {
	t.Helper()
	others := aside.Policy{Name: "others", Category: "others", TTL: time.Hour}
	_, err := aside.Get[string](t.Context(), c, others.Key("none"))
	require.ErrorIs(t, err, aside.ErrMiss)
}

// IsFill reports whether a command stores a value of a key, which with its header is longer than what other scripts take in its place.
func IsFill(args []string, key string) bool {
	return Evalsha(args, key) && len(args) >= 8 && args[4] == "{"+key+"}!l" && len(args[6]) > 20
}

// AsksForLease reports whether a command asks for the lease of a key that had no value.
func AsksForLease(args []string, key string) bool {
	return len(args) > 3 && args[0] == "SET" && args[1] == "{"+key+"}!l" && args[3] == "NX"
}

// Evalsha reports whether a command runs a script on a key.
func Evalsha(args []string, key string) bool {
	return len(args) > 3 && args[0] == "EVALSHA" && args[3] == key
}

// WithoutProbes returns the names that are not of the keys which each cache writes and reads to find out about its connections and its server.
// When it does so is up to the time.
func WithoutProbes(names any) (others []string) {
	for _, name := range names.([]any) {
		text := name.(string)
		if !strings.HasPrefix(text, "%watch:") && !strings.HasPrefix(text, "%probe:") && !strings.HasPrefix(text, "%mark:") {
			others = append(others, text)
		}
	}
	return others
}

package asidetest

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/gatewayz/aside"
)

// A HeldLoad is one that the test lets go.
type HeldLoad struct {
	Began, Release chan struct{}
	Loads          atomic.Int64
}

func NewHeld() *HeldLoad {
	return &HeldLoad{Began: make(chan struct{}, 100), Release: make(chan struct{})}
}

// Load returns value once it is released.
func (h *HeldLoad) Load(value string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		h.Loads.Add(1)
		h.Began <- struct{}{}
		<-h.Release
		return value, nil
	}
}

// Background calls GetOrLoad and returns where its value will be.
func Background(t *testing.T, c *aside.Cache, key aside.Key, load func(context.Context) (string, error), opts ...aside.CallOption) <-chan string {
	got := make(chan string, 1)
	go func() {
		v, err := aside.GetOrLoad(t.Context(), c, key, load, opts...)
		if err != nil {
			v = err.Error()
		}
		got <- v
	}()
	return got
}

func Value(v string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return v, nil }
}

func Refused(c *aside.Cache) uint64 { return c.Metrics().Labels["items"].FillsRejected }

package redistest

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// A harness is a testing.TB for programs.
type harness struct {
	testing.TB
	mu       sync.Mutex
	cleanups []func()
	errs     []string
}

// A failed harness panics with it.
type harnessFailure string

func (*harness) Helper() {}

func (h *harness) Cleanup(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cleanups = append(h.cleanups, f)
}

func (h *harness) Errorf(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errs = append(h.errs, fmt.Sprintf(format, args...))
}

func (h *harness) Fatal(args ...any) { panic(harnessFailure(fmt.Sprint(args...))) }
func (h *harness) Fatalf(format string, args ...any) {
	panic(harnessFailure(fmt.Sprintf(format, args...)))
}
func (h *harness) Skip(args ...any) { h.Fatal(args...) }

func (h *harness) TempDir() string {
	dir, err := os.MkdirTemp("", "redistest")
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// During runs do with what the functions of this package need where there is no test, and returns what has failed in it.
func During(do func(t testing.TB)) (err error) {
	h := new(harness)
	defer func() {
		if p := recover(); p != nil {
			failure, ok := p.(harnessFailure)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("%s", failure)
		}
		for len(h.cleanups) > 0 {
			last := h.cleanups[len(h.cleanups)-1]
			h.cleanups = h.cleanups[:len(h.cleanups)-1]
			last()
		}
		if err == nil && len(h.errs) > 0 {
			err = fmt.Errorf("%s", h.errs[0])
		}
	}()
	do(h)
	return nil
}

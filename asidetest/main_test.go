package asidetest_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatewayz/aside"
	suite "github.com/gatewayz/aside/internal/asidetest"
)

func TestMain(m *testing.M) { suite.Main(m) }

var products = aside.Policy{Name: "products", Category: "products", TTL: 10 * time.Minute}

// A fakeTB notes what a test is told. Its Fatalf does not end the goroutine.
type fakeTB struct {
	testing.TB
	mu       sync.Mutex
	failures []string // of Errorf and Fatalf; guarded by mu
	lines    []string // of Log; guarded by mu
	cleanups []func() // guarded by mu
}

func (f *fakeTB) Helper() {}

func (f *fakeTB) Errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures = append(f.failures, fmt.Sprintf(format, args...))
}

func (f *fakeTB) Fatalf(format string, args ...any) { f.Errorf(format, args...) }

func (f *fakeTB) Log(args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, fmt.Sprint(args...))
}

func (f *fakeTB) Cleanup(end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cleanups = append(f.cleanups, end)
}

// end does what the end of a test does.
func (f *fakeTB) end() {
	for i := len(f.cleanups) - 1; i >= 0; i-- {
		f.cleanups[i]()
	}
}

// log is what was logged so far.
func (f *fakeTB) log() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.lines, "\n")
}

// failed is what the test has failed with so far.
func (f *fakeTB) failed() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.failures, "\n")
}

func loadName(_ context.Context, id int) (string, error) { return fmt.Sprint("product ", id), nil }

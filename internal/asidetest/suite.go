// Package asidetest is what the suites of tests under internal/tests share: caches on servers that the tests start, loaders that
// are held, processes of their own, and what they wait for.
package asidetest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside/internal/fleet"
	"github.com/gatewayz/aside/internal/redistest"
)

// Main runs the tests of a package. It knows the processes that tests start, and fails where a goroutine is left behind.
func Main(m *testing.M) {
	redistest.MaybeSubprocess(map[string]func(){
		"reader":   readerProcess,
		"holder":   holderProcess,
		"member":   memberProcess,
		"follower": followerProcess,
		"servant":  servantProcess,
		"plain":    plainProcess,
		"brief":    briefProcess,
		"fleet":    fleet.Member,
		"herd":     herdProcess,
		"stranger": strangerProcess,
		"warmer":   warmerProcess,
		"racer":    racerProcess,
	})
	if AsUser {
		redistest.User = append(append([]string{"aside"}, ACLRules(Canary, allCategories()...)...), "+asking", "+wait") // the last two for clusters and replicas
	}
	redistest.Alone = InCluster
	goleak.VerifyTestMain(m)
}

// Root is the directory of the module that a test is in.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := root()
	require.NoError(t, err)
	return dir
}

// Page is a page of the module's documents, by its name from the module's root.
func Page(t testing.TB, name string) string {
	t.Helper()
	text, err := page(name)
	require.NoError(t, err)
	return text
}

func page(name string) (string, error) {
	dir, err := root()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(dir, name))
	return string(text), err
}

func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		module, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(module), "module github.com/gatewayz/aside\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("there is no module around the test")
		}
		dir = up
	}
}

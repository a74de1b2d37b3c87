package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside/internal/redistest"
)

func TestMain(m *testing.M) {
	for _, name := range []string{"REDIS_URL", "REDIS_HOST"} { // the cache is in memory
		os.Unsetenv(name)
	}
	goleak.VerifyTestMain(m)
}

// output is a writer for several goroutines.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// A running is the command, until stop.
type running struct {
	t              *testing.T
	stdout, stderr output
	stop           context.CancelFunc
	code           chan int
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r := &running{t: t, stop: stop, code: make(chan int, 1)}
	go func() { r.code <- run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), &r.stdout, &r.stderr) }()
	t.Cleanup(func() { stop(); r.code <- <-r.code }) // also after a failure
	return r
}

// prints waits for a text on standard output, and returns its first group.
func (r *running) prints(pattern string) string {
	r.t.Helper()
	var found []string
	require.Eventually(r.t, func() bool {
		select {
		case code := <-r.code:
			r.code <- code
			r.t.Errorf("the command has ended with %d: %s", code, &r.stderr)
			return true
		default:
		}
		found = regexp.MustCompile(pattern).FindStringSubmatch(r.stdout.String())
		return found != nil
	}, time.Minute, 10*time.Millisecond, "%s is not in %s", pattern, &r.stdout)
	require.NotNil(r.t, found)
	return found[1]
}

// ends requires that the command ends with a status once it is stopped, as by Control-C.
func (r *running) ends(code int) {
	r.t.Helper()
	r.stop()
	got := <-r.code
	r.code <- got
	require.Equal(r.t, code, got, "%s", &r.stderr)
}

func get(address string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(address)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

// installed is the path of prometheus: in PATH, or where scripts/install-test-tools.sh has put it.
func installed(t *testing.T) string {
	t.Helper()
	for _, place := range []string{"prometheus", "../../.tools/prometheus"} {
		if path, err := exec.LookPath(place); err == nil {
			return path
		}
	}
	if os.Getenv("ASIDE_REQUIRE_PROMETHEUS") == "1" {
		t.Fatal("prometheus not found, and ASIDE_REQUIRE_PROMETHEUS=1 asks for it: run scripts/install-test-tools.sh")
	}
	t.Skip("prometheus not found: skipping; `make tools` installs it")
	return ""
}

// Prometheus scrapes the server, has each graph that the command names, and ends with the command.
func TestAServerIsObserved(t *testing.T) {
	t.Parallel()
	program, dir := installed(t), t.TempDir()
	r := start(t, "-prometheus", program, "-prometheus-addr", fmt.Sprint("127.0.0.1:", redistest.FreePort(t)), "-dir", dir)
	server := r.prints(`The graphs are at (\S+)/,`)
	base := r.prints(`Prometheus is at (\S+), `)
	var page string
	require.Eventually(t, func() bool {
		var err error
		page, err = get(server + "/")
		return err == nil && strings.Count(page, "<polyline") >= len(graphs)
	}, time.Minute, 200*time.Millisecond)
	require.NotContains(t, page, `role="alert"`)
	for _, g := range graphs {
		require.Regexp(t, "(?s)<h2>"+regexp.QuoteMeta(g.Title)+"</h2>\n<svg[^>]*>\n<polyline[^>]*points=\"[0-9]+\\.", page, "each graph has a line")
	}
	require.Regexp(t, `models: [0-9.]+ %`, page)
	text, err := get(base + "/api/v1/rules")
	require.NoError(t, err)
	require.Contains(t, text, "AsideDegraded")
	text, err = get(server + "/metrics")
	require.NoError(t, err)
	for _, metric := range []string{`aside_hits_total{cache="default",label="models",tier="memory"} [1-9]`, `aside_misses_total{cache="default",cause="absent",label="sessions"} [1-9]`} {
		require.Regexp(t, metric, text)
	}
	r.ends(0)
	for _, address := range []string{server, base} {
		_, err := get(address)
		require.Error(t, err, "it has ended with the command")
	}
	require.NoFileExists(t, filepath.Join(dir, "data", "lock"), "prometheus has ended by itself, and was not killed")
	require.FileExists(t, filepath.Join(dir, "aside.dashboard.json"))
	require.NotContains(t, r.stderr.String(), "observe:")
}

// Without Prometheus the command says how to get it, and serves.
func TestWithoutPrometheus(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	r := start(t)
	r.prints(`(There is no program prometheus in PATH)`)
	r.prints(`(-prometheus prometheus/usr/bin/prometheus)`)
	settings, err := os.ReadFile(r.prints(`read\n(\S+prometheus.yml)\.`))
	require.NoError(t, err)
	server := r.prints(`The graphs are at (\S+)/, of a server that caches in memory`)
	require.Contains(t, string(settings), strings.TrimPrefix(server, "http://"))
	text, err := get(server + "/models/3")
	if err == nil { // the source may fail
		require.Contains(t, text, "model 3 ")
	}
	text, err = get(server + "/")
	require.NoError(t, err)
	require.Contains(t, text, `<p role="alert">There is no Prometheus`)
	_, err = get(server + "/models/200")
	require.ErrorContains(t, err, "404")
	r.ends(0)
	left, err := os.ReadDir(temporary)
	require.NoError(t, err)
	require.Empty(t, left, "the temporary directory is removed")
}

func TestAPrometheusThatEndsIsAnError(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "prometheus")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho first\necho 'the address is in use'\nexit 3\n"), 0o700))
	r := start(t, "-prometheus", program)
	require.Equal(t, 1, func() int { code := <-r.code; r.code <- code; return code }())
	require.Contains(t, r.stderr.String(), "observe: prometheus has ended: exit status 3: the address is in use\n")
}

func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	for _, of := range []struct {
		args []string
		want string
	}{
		{[]string{"-prometheus", "./not/there"}, "-prometheus: "},
		{[]string{"-rate", "0"}, "-rate 0: want 1 to 10000"},
		{[]string{"-rate", "NaN"}, "-rate NaN"},
		{[]string{"serve"}, `unexpected argument "serve"`},
		{[]string{"-no"}, "-no"},
	} {
		var stdout, stderr output
		require.Equal(t, 2, run(t.Context(), of.args, &stdout, &stderr), of.args)
		require.Contains(t, stderr.String(), "observe: ")
		require.Contains(t, stderr.String(), of.want)
	}
	var stdout, stderr output
	require.Equal(t, 0, run(t.Context(), []string{"-help"}, &stdout, &stderr))
	require.Contains(t, stdout.String(), "-prometheus-addr")
}

// Without flags, nothing listens on an address that others can reach.
func TestTheDefaultIsLoopback(t *testing.T) {
	t.Parallel()
	cfg, err := parseFlags(nil, io.Discard)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:8081", cfg.addr)
	require.Equal(t, "127.0.0.1:9090", cfg.prometheusAddr)
}

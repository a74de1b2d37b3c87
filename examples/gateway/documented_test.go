package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// A step is a command of docs/admin-http.md with its documented answer.
type step struct {
	command string
	answer  string
	line    int
}

// documentedSteps returns the commands of the page's section on the HTTP API.
func documentedSteps(t *testing.T) (steps []step) {
	t.Helper()
	text, err := os.ReadFile("../../docs/admin-http.md")
	require.NoError(t, err)
	inside := false
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch command, isCommand := strings.CutPrefix(line, "    $ "); {
		case strings.HasPrefix(line, "#"):
			inside = line == "## The HTTP API"
		case !inside:
		case isCommand:
			steps = append(steps, step{command: command, line: n})
		case strings.HasPrefix(line, "    ") && len(steps) > 0:
			steps[len(steps)-1].answer += line[4:]
		}
	}
	return steps
}

// same reports whether an answer equals the documented one, except for white space, times, and text that the page replaces by an ellipsis.
func same(documented, real string) bool {
	documented = varying.ReplaceAllString(documented, "$1")
	real = varying.ReplaceAllString(real, "$1")
	squeeze := func(text string) string { return strings.Join(strings.Fields(text), "") }
	pattern := strings.ReplaceAll(regexp.QuoteMeta(squeeze(documented)), "…", ".*")
	return regexp.MustCompile("^" + pattern + "$").MatchString(squeeze(real))
}

var varying = regexp.MustCompile(`("timestamp":|"took_ms":|"since":)("[^"]*"|[0-9.]+)`)

// A shell runs a command of the page, and returns its output.
type shell func(ctx context.Context, command string) (string, error)

// realShell is sh with the installed curl. Variables keep their values between commands.
func realShell(env []string) shell {
	var before strings.Builder
	return func(ctx context.Context, command string) (string, error) {
		if !strings.HasPrefix(command, "curl ") {
			before.WriteString(command + "\n")
			return "", nil
		}
		cmd := exec.CommandContext(ctx, "sh", "-c", before.String()+command)
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}

// ownShell implements the parts of a shell and of curl that the page uses.
func ownShell(env []string) shell {
	vars := map[string]string{}
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		vars[name] = value
	}
	return func(ctx context.Context, command string) (string, error) {
		words := split(command, vars)
		if words[0] != "curl" {
			for _, word := range words {
				name, value, _ := strings.Cut(word, "=")
				vars[name] = value
			}
			return "", nil
		}
		method, body, target, silent := http.MethodGet, "", "", false
		header := http.Header{}
		for i := 1; i < len(words); i++ {
			argument := func() string { i++; return words[i] }
			switch words[i] {
			case "-s":
			case "-o":
				silent = argument() == "/dev/null"
			case "-H":
				name, value, _ := strings.Cut(argument(), ": ")
				header.Set(name, value)
			case "-d":
				body, method = argument(), http.MethodPost
				if header.Get("Content-Type") == "" {
					header.Set("Content-Type", "application/x-www-form-urlencoded")
				}
			case "-X":
				method = argument()
			default:
				if target != "" || strings.HasPrefix(words[i], "-") {
					return "", fmt.Errorf("%q: this test does not know that of curl", words[i])
				}
				target = words[i]
			}
		}
		request, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
		if err != nil {
			return "", err
		}
		request.Header = header
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		out, err := io.ReadAll(response.Body)
		if silent {
			if response.StatusCode != http.StatusOK {
				return string(out), errors.New(response.Status)
			}
			out = nil
		}
		return string(out), err
	}
}

// split splits a command into words, and expands quotes and variables.
func split(command string, vars map[string]string) (words []string) {
	var word strings.Builder
	open, quote := false, byte(0)
	for i := 0; i < len(command); i++ {
		switch c := command[i]; {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, open = c, true
		case quote == 0 && c == ' ':
			if open {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
		case quote != '\'' && c == '$':
			name := variable.FindString(command[i+1:])
			word.WriteString(vars[name])
			i += len(name)
			open = true
		default:
			word.WriteByte(c)
			open = true
		}
	}
	if open {
		words = append(words, word.String())
	}
	return words
}

var variable = regexp.MustCompile(`^[A-Za-z_]+`)

// The test runs every curl command of the section on the HTTP API in docs/admin-http.md, in order, against the example on a real Redis. Each command
// must give the documented answer.
func TestTheDocumentedCommandsGiveTheirAnswers(t *testing.T) {
	steps := documentedSteps(t)
	answered := 0
	for _, s := range steps {
		if s.answer != "" {
			answered++
		}
	}
	require.GreaterOrEqual(t, answered, 15, "the commands are found")
	page, err := os.ReadFile("../../docs/admin-http.md")
	require.NoError(t, err)
	require.Contains(t, string(page), "go run ./examples/gateway -warm=false", "the cache begins empty")
	shells := map[string]func([]string) shell{"curl": realShell, "net/http": ownShell}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Log("there is no curl here: net/http alone")
		delete(shells, "curl")
	}
	for name, newShell := range shells {
		t.Run(name, func(t *testing.T) {
			// On a busy machine, Redis can exceed its time limit once, and a value is then not stored.
			var failed string
			for range 3 {
				if failed = tell(t, steps, newShell); failed == "" {
					return
				}
				t.Log(failed)
			}
			t.Error(failed)
		})
	}
}

// tell runs all steps once, and returns the first difference.
func tell(t *testing.T, steps []step, newShell func([]string) shell) (differs string) {
	memoryOnly(t)
	server := redistest.Start(t)
	t.Setenv("REDIS_URL", "redis://"+server.Addr())
	const secret = "a secret of sixteen bytes or more"
	keys := []string{"CACHE_API_KEY=0123456789abcdef0123456789abcdef", "CACHE_READ_KEY=fedcba9876543210fedcba9876543210", "CACHE_SECRET=" + secret}
	for _, pair := range keys {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	var stdout, stderr output
	ctx, stop := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"-addr", "127.0.0.1:0", "-users", "10", "-speedup", "1000", "-warm=false", "-redis-timeout", "2s"}, &stdout, &stderr)
	}()
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		require.Equal(t, 0, <-code, "%s", &stderr)
		for _, pair := range keys {
			_, secret, _ := strings.Cut(pair, "=")
			require.NotContains(t, stdout.String()+stderr.String(), secret)
		}
	}()
	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+`)
	require.Eventually(t, func() bool {
		return address.MatchString(stdout.String()) && strings.Contains(stderr.String(), "connected to redis")
	}, time.Minute, 5*time.Millisecond, "%s", &stderr)
	base := address.FindString(stdout.String())

	hashes, err := aside.New(aside.Options{Secret: aside.NewSecret(secret)})
	require.NoError(t, err)
	defer hashes.Close()
	own := strings.NewReplacer("http://127.0.0.1:8080", base, "EyVKj5uC_qiF5cyo", hashes.HashID(demoKey(1)))
	sh := newShell(keys)
	for _, s := range steps {
		got, err := sh(ctx, own.Replace(s.command))
		require.NoError(t, err, "docs/admin-http.md:%d: %s", s.line, got)
		for strings.Contains(got, `"running":true`) { // the page shows a warmer that has ended
			got, err = sh(ctx, own.Replace(s.command))
			require.NoError(t, err, "docs/admin-http.md:%d: %s", s.line, got)
		}
		if !same(s.answer, got) {
			return fmt.Sprintf("docs/admin-http.md:%d: %s\nsays    %s\nanswers %s", s.line, s.command, s.answer, got)
		}
		awaitNoLease(t, server) // fills are asynchronous: the end of the lease shows that the value is stored
	}
	return ""
}

// awaitNoLease waits until no load and no warming holds a lease. Those of loads are released in the background.
func awaitNoLease(t *testing.T, server *redistest.Server) {
	t.Helper()
	require.Eventually(t, func() bool { return len(server.MustDo(t, "KEYS", "{*}!l").([]any)) == 0 }, time.Minute, time.Millisecond)
}

func TestTheDocumentedAnswersAreCompared(t *testing.T) {
	require.True(t, same(`{"a":1,…,"took_ms":1.5,"timestamp":1,"since":"x"}`, `{"a":1,"b":2,"took_ms":99,"timestamp":2,"since":"2025-11-21T08:00:00Z"}`+"\n"))
	require.True(t, same(`{"detail":"a b`+` c"}`, `{"detail":"a b c"}`))
	require.False(t, same(`{"a":1}`, `{"a":2}`))
	require.False(t, same(`{"a":1}`, `{"a":1,"b":2}`))
	require.False(t, same(``, `{"a":1}`))
	require.Equal(t, []string{"curl", "a b", "c$d", "5x"}, split(`curl "a b" 'c$d' "$n"x`, map[string]string{"n": "5"}))
}

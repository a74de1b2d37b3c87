package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/redistest"
)

const asCommand = "ASIDE_RUN_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) == "1" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// bound is how long a run of the command may take.
const bound = 2 * time.Minute

// A shell runs the command as a process of its own, with an environment.
type shell []string

// on is the environment of a command that works on a server.
func on(server *redistest.Server) shell { return shell{"REDIS_URL=redis://" + server.Addr()} }

func (s shell) command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	if onServers := []string{"inspect", "list", "invalidate", "doctor", "tail", "stats", "watch"}; len(args) > 0 && slices.Contains(onServers, args[0]) {
		args = slices.Insert(slices.Clone(args), 1, "-timeout", bound.String()) // on a busy machine a connection takes its time
	}
	program, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	// At its end a program under the race detector waits a second for what is still to be seen.
	cmd.Env = append([]string{asCommand + "=1", "GORACE=atexit_sleep_ms=0", "HOME=" + os.Getenv("HOME"), "PATH=" + os.Getenv("PATH")}, s...)
	return cmd
}

// run returns what the command prints, its errors, and its exit code. It prints no canary.
func (s shell) run(t testing.TB, args ...string) (out, errs string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := s.command(t, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); !exited {
		require.NoError(t, err)
	}
	form, found := asidetest.CanaryIn(stdout.String() + stderr.String())
	require.False(t, found, "the canary was told as %s: %s%s", form, stdout.String(), stderr.String())
	require.NotContains(t, stderr.String(), "goroutine ", "a panic")
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// ok is run for a command that succeeds.
func (s shell) ok(t testing.TB, args ...string) string {
	t.Helper()
	out, errs, code := s.run(t, args...)
	require.Zero(t, code, "%s%s", out, errs)
	require.Empty(t, errs)
	return out
}

var products = aside.Policy{Name: "products", Category: "products", TTL: 10 * time.Minute}

type product struct{ Name string }

// seed stores values as a program does: the ids are those of products.
func seed[T any](t testing.TB, server *redistest.Server, values map[string]T, tags ...string) {
	t.Helper()
	c := asidetest.Connected(t, asidetest.Anonymously(server.Addr()))
	for id, value := range values {
		key := products.Key(id)
		asidetest.Eventually(t, "the value is stored", func() bool { // Set stores nothing where Redis is slow
			require.NoError(t, aside.Set(t.Context(), c, key, value, aside.WithTags(tags...)))
			n, err := server.Do("EXISTS", key.String())
			return err == nil && n == int64(1)
		})
	}
	require.NoError(t, c.Close())
}

func TestUsage(t *testing.T) {
	t.Parallel()
	out, errs, code := shell{}.run(t)
	require.Equal(t, exitUsage, code)
	require.Empty(t, errs)
	for _, v := range verbs() {
		require.Contains(t, out, "\n    "+v.name+" ")
	}
	for _, args := range [][]string{{"-h"}, {"--help"}, {"help"}} {
		require.Equal(t, out, shell{}.ok(t, args...))
	}
	for _, v := range verbs() {
		help := shell{}.ok(t, v.name, "-h")
		require.Equal(t, help, shell{}.ok(t, "help", v.name))
		require.Contains(t, help, "aside "+v.name)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"instpect"}, `there is no verb "instpect": the verbs are inspect`},
		{[]string{"inspect"}, "give one key, such as products:7"},
		{[]string{"inspect", "a:b", "c:d"}, "give one key"},
		{[]string{"inspect", "a:b", "-nosuch"}, "flag provided but not defined: -nosuch"},
		{[]string{"inspect", "a:b"}, "there is no Redis: set REDIS_URL or REDIS_HOST"},
		{[]string{"inspect", "a:b", "-redis", "localhost:6379"}, "write redis://host:port/db"},
		{[]string{"hash", "-json", "-nosuch"}, "flag provided but not defined: -nosuch"},
		{[]string{"list", "-timeout", "0s"}, "-timeout is not positive"},
		{[]string{"invalidate", "-all", "-wait", "-1s"}, "-wait is negative"},
		{[]string{"inspect", "a:b", "-redis", "redis://u:" + asidetest.Canary + "@localhost"}, "everybody on this machine can see a command line"},
		{[]string{"inspect", "a:b", "-redis", "redis://localhost", "-namespace", "a:b"}, "Namespace"},
	} {
		out, errs, code := shell{}.run(t, c.args...)
		require.Equal(t, exitUsage, code, "%v: %s", c.args, errs)
		require.Contains(t, errs, c.want, c.args)
		require.Empty(t, out)
	}
}

func TestARedisThatCannotBeReached(t *testing.T) {
	t.Parallel()
	sh := shell{"REDIS_URL=redis://user:" + asidetest.Canary + "@" + asidetest.Nobody(t)}
	for _, args := range onARedis {
		_, errs, code := sh.run(t, args...)
		require.Equal(t, exitFinding, code, errs)
		require.Contains(t, errs, "nothing listens at its address", args)
	}
}

// onARedis are the verbs that need one, with arguments that are right.
var onARedis = [][]string{{"inspect", "products:7"}, {"list", "products:*"}, {"list"}, {"invalidate", "-all", "-yes"}, {"tail", "products:", "-n", "1"}}

var varying = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\b[0-9a-f]{24}\b`), "<fill>"},
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\dT[0-9:.]+Z`), "<time>"},
	{regexp.MustCompile(`\b(\d+(\.\d+)?(ns|µs|ms|s|m|h))+\b`), "<duration>"},
	{regexp.MustCompile(`\b\d{16}\b`), "<generation>"},
	{regexp.MustCompile(`\b\d+\.\d MiB`), "<bytes>"},
	{regexp.MustCompile(`(Valkey )?\b\d+\.\d+\.\d+, (standalone|cluster)\b`), "<version>, $2"},
	{regexp.MustCompile(`\b\d+ (keys of|looked at)`), "<some> $1"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d(\.\d{3})?\b`), "<clock>"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "<address>"},
	{regexp.MustCompile(`localhost:\d+`), "<address>"},
	{regexp.MustCompile(` +`), " "},
	{regexp.MustCompile(` \n`), "\n"},
}

// general is output without what varies from run to run.
func general(text string) string {
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.by)
	}
	return strings.TrimSpace(text)
}

// documented are the commands of a section of docs/cli.md with their output.
func documented(t *testing.T, section string) (commands [][]string, outputs []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	_, page, found := strings.Cut(string(text), "\n## "+section+"\n")
	require.True(t, found)
	page, _, _ = strings.Cut(page, "\n## ")
	inside := false
	for line := range strings.Lines(page) {
		if command, ok := strings.CutPrefix(line, "    $ aside "); ok {
			commands, outputs = append(commands, words(command)), append(outputs, "")
			inside = true
		} else if inside && (strings.HasPrefix(line, "    ") || line == "\n") {
			outputs[len(outputs)-1] += strings.TrimPrefix(line, "    ")
		} else {
			inside = false
		}
	}
	require.NotEmpty(t, commands)
	return commands, outputs
}

// words splits a command at its spaces, but for those in single quotes.
func words(command string) (words []string) {
	for i, part := range strings.Split(strings.TrimSpace(command), "'") {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}

// requireDocumented runs the commands of a section, in their order, with more flags, and compares what they print.
func (s shell) requireDocumented(t *testing.T, section string, more ...string) {
	t.Helper()
	commands, outputs := documented(t, section)
	for i, args := range commands {
		out, errs, _ := s.run(t, append(args, more...)...)
		require.Equal(t, general(outputs[i]), general(out+errs), "docs/cli.md: aside %s prints\n%s", strings.Join(args, " "), out+errs)
	}
}

package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/asidetest"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/wire"
)

// followed runs tail, and each of the steps when the line of the one before is there.
func followed(t *testing.T, sh shell, args []string, steps ...func()) string {
	t.Helper()
	cmd := sh.command(t, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewReader(out)
	var text strings.Builder
	for _, step := range steps {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		text.WriteString(line)
		step()
	}
	rest, err := io.ReadAll(lines)
	require.NoError(t, err)
	require.NoError(t, cmd.Wait())
	text.Write(rest)
	return text.String()
}

// valueOf is a value as a process stores it.
func valueOf(t *testing.T, key string) string {
	t.Helper()
	began := time.Now()
	h := wire.Header{
		Codec: wire.ID(wire.JSON), LoadStart: began.UnixMicro(), FreshUntil: began.Add(time.Hour).UnixMicro(), DeadUntil: began.Add(time.Hour).UnixMicro(),
		LoadDuration: 120 * time.Millisecond, Nonce: wire.NewNonce(), Tags: []wire.Tag{{Name: keyspace.All, Generation: 1}},
	}
	value, err := wire.Encode(key, h, []byte(`{"Name":"lamp"}`+strings.Repeat(" ", 50)), wire.Limits{MaxValue: 1000, CompressFrom: -1})
	require.NoError(t, err)
	return string(value)
}

func TestTail(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	do := func(args ...string) func() { return func() { server.MustDo(t, args...) } }
	commands, outputs := documented(t, "tail")
	out := followed(t, on(server), commands[0],
		do("SET", "products:7", valueOf(t, "products:7")),
		do("UNLINK", "products:7"),
		do("SET", "products:8", "another program's"))
	require.Equal(t, general(outputs[0]), general(out), "docs/cli.md: %s", out)

	// Writes of scripts, and what expires, show too. Keys outside of the prefix do not.
	out = followed(t, on(server), []string{"tail", "products:", "-n", "2"},
		func() {
			server.MustDo(t, "SET", "others:1", "x")
			server.MustDo(t, "EVAL", "redis.call('SET', KEYS[1], ARGV[1], 'PX', 50)", "1", "products:9", valueOf(t, "products:9"))
		}, func() {})
	require.Contains(t, out, "products:9  removed")
	require.NotContains(t, out, "others")

	out = followed(t, on(server), []string{"tail", "-n", "1", "%t:"}, do("SET", "%t:supplier 3", "1763950000000000"))
	require.Contains(t, out, "tag supplier 3: its generation is 1763950000000000")
	out = followed(t, on(server), []string{"tail", "-n", "1", "x:"}, do("FLUSHALL"))
	require.Contains(t, out, "everything was flushed")
	out = followed(t, on(server), []string{"tail", "-n", "2", "products:"}, do("CLIENT", "KILL", "TYPE", "normal"), do("SET", "products:7", "x"))
	require.Contains(t, out, "or the connection was lost")
	require.Contains(t, out, "products:7  no value") // it follows again
	out = followed(t, on(server), []string{"tail", "-n", "1", "-namespace", "shop", "products:"}, do("SET", "shop%:products:7", valueOf(t, "shop%:products:7")))
	require.Contains(t, out, "shop%:products:7  stored ")
	require.Contains(t, on(server).ok(t, "tail", "nosuch:", "-for", "10ms"), "0 changes of 0 keys")
}

// A hostile name does not reach the terminal as a command.
func TestTailHostileNames(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	out := followed(t, on(server), []string{"tail", "-n", "1", "products:"}, func() { server.MustDo(t, "SET", "products:\x1b[2J\n", "x") })
	require.NotContains(t, out, "\x1b")
	require.Contains(t, out, `products:\x1b[2J\n  no value`)
}

func TestTailJSON(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	sh := on(server)
	cmd := sh.command(t, "tail", "-json", "-n", "1", "products:")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	asidetest.Eventually(t, "it follows", func() bool {
		return says(server, "clients", "tracking_clients:1") && server.MustDo(t, "SET", "products:7\u009b", "x") == "OK"
	})
	text, err := io.ReadAll(out)
	require.NoError(t, err)
	require.NotContains(t, string(text), "\u009b")
	var got struct{ Key, What string }
	require.NoError(t, json.Unmarshal(text, &got))
	require.NoError(t, cmd.Wait())
	require.Equal(t, "products:7\u009b", got.Key)
}

func TestTailRefuses(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {""}, {"a:", "b:"}, {"products:*"}, {"-for", "0s", "a:"}, {"-n", "-1", "a:"}} {
		_, errs, code := shell{"REDIS_HOST=localhost"}.run(t, append([]string{"tail"}, args...)...)
		require.Equal(t, exitUsage, code, "%v: %s", args, errs)
	}
	server := redistest.Start(t)
	server.MustDo(t, "ACL", "SETUSER", "u", "on", ">"+asidetest.Canary, "~*", "+@all", "-client|tracking")
	_, errs, code := shell{"REDIS_URL=redis://u:" + asidetest.Canary + "@" + server.Addr()}.run(t, "tail", "a:")
	require.Equal(t, exitFinding, code)
	require.Contains(t, errs, "CLIENT TRACKING")
}

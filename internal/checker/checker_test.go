package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.MaybeSubprocess(map[string]func(){"worker": workerProcess})
	os.Exit(m.Run())
}

// short is for machines that have a race detector and other tests to run.
func short(o options) options {
	o.topology, o.quiet, o.longest, o.readers, o.writers = "single", 300*time.Millisecond, 0.3, 24, 4
	return o
}

// The short form of what `go run ./internal/checker` does at length. Two of these schedules have windows, and the third has keys that are changed by one
// process each.
func TestProcessesUnderFaultsReadWhatTheyMay(t *testing.T) {
	var out bytes.Buffer
	ok := repeat(&out, short(options{schedules: fewSchedules, seed: 29, out: t.TempDir()}))
	t.Log(out.String())
	require.True(t, ok)
}

// A check that accepts what a broken cache does would be worth nothing.
func TestABrokenCacheIsCaught(t *testing.T) {
	for _, c := range []struct {
		broken string
		held   strength
		faults []string
	}{
		{brokenForgets, ownProcess, []string{"cut"}},
		{brokenHoards, ownProcess, []string{"cut"}},
		{brokenKeeps, ownProcess, []string{"cut"}},
		{brokenWeak, byStrong, []string{"slow", "partition", "replies lost"}},
	} {
		t.Run(c.broken, func(t *testing.T) {
			t.Parallel() // they mostly wait
			dir := t.TempDir()
			var out bytes.Buffer
			o := short(options{schedules: 20, seed: 1, out: dir, broken: c.broken, only: c.faults})
			o.longest = 1
			ok := repeat(&out, o)
			require.False(t, ok)
			require.Contains(t, out.String(), c.held.String(), "by the rule")
			require.Contains(t, out.String(), "porcupine finds no place", "and by porcupine")

			saved, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
			require.NoError(t, err)
			require.Len(t, saved, 1, "the history is kept")
			var again bytes.Buffer
			require.False(t, checkFile(&again, saved[0]), "and can be checked again")
			require.Equal(t, violationsIn(out.String()), violationsIn(again.String()))
		})
	}
}

func violationsIn(out string) (list []string) {
	out, _, _ = strings.Cut(out, "\n\n") // the summary comes after it
	for line := range strings.Lines(out) {
		if strings.Contains(line, "Held to") {
			list = append(list, line)
		}
	}
	return list
}

func TestAnUnknownTopologyIsRefused(t *testing.T) {
	var out bytes.Buffer
	require.False(t, repeat(&out, options{topology: "none", schedules: 1}))
	require.Contains(t, out.String(), "single")
}

// Whether a server that was killed comes back with what it had makes a difference to what has to be done then.
func TestOnlyAPersistentServerComesBackWithWhatItHad(t *testing.T) {
	t.Parallel()
	for persistent, left := range map[bool]int64{true: 1, false: 0} {
		s := newSingle(t, persistent).(*single)
		s.must("SET", "k", "v")
		s.server.Kill()
		s.restart()
		require.Equal(t, left, s.must("EXISTS", "k"))
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
)

func TestTheBarOfAWarming(t *testing.T) {
	at := aside.Warmed{Seen: 7, Loaded: 5, Fresh: 1, Failed: 1, Took: 1234 * time.Millisecond}
	for width, want := range map[int]string{
		200: "warming catalogues [#############---------------------------]  7/21:  5 loaded,  1 fresh,  1 failed  1.2s",
		0:   "warming catalogues [####----------]  7/21:  5 loaded,  1 fresh,  1 failed  1.2s",
		80:  "warming catalogues [####----------]  7/21:  5 loaded,  1 fresh,  1 failed  1.2s",
		60:  "warming catalogues [########------------------]  7/21  1.2s",
		40:  "catalogues [######--------------]  7/21",
		20:  "[###--------]  7/21",
		10:  "7/21",
		4:   "7/2",
		1:   "",
	} {
		require.Equal(t, want, bar("catalogues", at, 21, width), "a width of %d", width)
	}
	require.Contains(t, bar("rankings", aside.Warmed{Seen: 2}, 2, 80), "[#####################] 2/2:")
}

func TestTheBarIsOneLineOfASCIIThatFits(t *testing.T) {
	for _, total := range []int{0, 1, 25, 100_000} {
		for _, seen := range []int{0, total / 3, total, total + 5} {
			length := 0
			for width := range 130 {
				w := aside.Warmed{Seen: seen, Failed: seen / 2, NotFound: seen / 4, Took: time.Hour}
				line := bar("catalogues", w, total, width)
				require.Regexp(t, `^[ -~]*$`, line)
				if width > 0 {
					require.Less(t, len(line), width)
				}
				if w.NotFound == 0 {
					begun := bar("catalogues", aside.Warmed{Took: time.Hour}, total, width)
					length = len(begun)
					if seen <= total && width > 20 {
						require.Len(t, line, length, "the bar keeps its length")
					}
				}
			}
		}
	}
}

func TestTheSummaryOfAWarming(t *testing.T) {
	all := aside.Warmed{Seen: 21, Loaded: 21, Took: 3240 * time.Millisecond}
	require.Equal(t, "warmed 21 catalogues in 3.2s: 21 loaded, 0 fresh, 0 failed", summary("catalogues", all, 21, nil))
	fresh := aside.Warmed{Seen: 21, Fresh: 18, Failed: 2, NotFound: 1, Took: 3240 * time.Microsecond}
	require.Equal(t, "warmed 21 catalogues in 3ms: 0 loaded, 18 fresh, 2 failed, 1 not found", summary("catalogues", fresh, 21, nil))
	require.Equal(t, "catalogues are not warmed here: another process warms them", summary("catalogues", aside.Warmed{Elsewhere: true}, 21, nil))
	cut := aside.Warmed{Seen: 12, Loaded: 3, Fresh: 1, Failed: 8, Took: 2 * time.Second}
	require.Equal(t, "warming stopped after 2.0s with 4 of 21 catalogues: context canceled", summary("catalogues", cut, 21, context.Canceled))
}

// screenOf is what a terminal shows after the output: \r goes back to the start of the line, and later characters replace those that are there.
func screenOf(t *testing.T, written string) string {
	var lines []string
	for line := range strings.SplitSeq(written, "\n") {
		var row []byte
		at := 0
		for i := range len(line) {
			if line[i] == '\r' {
				at = 0
				continue
			}
			require.True(t, line[i] >= ' ' && line[i] <= '~', "%q", line)
			if at == len(row) {
				row = append(row, ' ')
			}
			row[at] = line[i]
			at++
		}
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	return strings.Join(lines, "\n")
}

func TestLogLinesAreAboveTheBar(t *testing.T) {
	var out output
	c := &console{out: &out, width: func() int { return 80 }}
	fmt.Fprintln(c, "before")
	c.draw("a long bar [####----]")
	require.Equal(t, "before\na long bar [####----]", screenOf(t, out.String()))
	fmt.Fprintln(c, "a line")
	require.Equal(t, "before\na line\na long bar [####----]", screenOf(t, out.String()))
	c.draw("a bar [#]")
	require.Equal(t, "before\na line\na bar [#]", screenOf(t, out.String()))
	c.end("done")
	fmt.Fprintln(c, "after")
	require.Equal(t, "before\na line\ndone\nafter\n", screenOf(t, out.String()))
}

func TestATerminalShowsABarAndItsSummary(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"done":   {nil, `^warmed 3 cups in \S+: 2 loaded, 0 fresh, 1 failed\n.*not warmed.*cups=tea.*"it is cold"\n$`},
		"failed": {errors.New("no water"), `^warming stopped after \S+ with 2 of 3 cups: no water\n.*not warmed.*cups=tea`},
	} {
		t.Run(name, func(t *testing.T) {
			var out output
			screen := &console{out: &out, width: func() int { return 80 }}
			log := slog.New(slog.NewTextHandler(screen, nil))
			w := warming{"cups", 3, func(_ context.Context, hooks warmingHooks) (aside.Warmed, error) {
				warmed := aside.Warmed{Seen: 2, Loaded: 2, Took: time.Second}
				hooks.loaded("coffee", errors.New("spilled once"))
				hooks.loaded("coffee", nil)
				hooks.loaded("tea", errors.New("it is cold"))
				hooks.progress(warmed)
				require.Eventually(t, func() bool {
					return regexp.MustCompile(`\rwarming cups \[#+-+\] 2/3: 2 loaded, 0 fresh, 0 failed  \d+\.\ds`).MatchString(out.String())
				}, time.Minute, time.Millisecond)
				log.Info("a request failed")
				warmed.Seen, warmed.Failed = 3, 1
				return warmed, test.err
			}}
			w.show(t.Context(), screen, log)
			rest := screenOf(t, out.String())
			first, rest, _ := strings.Cut(rest, "\n")
			require.Contains(t, first, "a request failed")
			require.Regexp(t, test.want, rest)
			require.NotContains(t, rest, "coffee")
		})
	}
}

func TestOnlyATerminalGetsABar(t *testing.T) {
	require.Nil(t, newConsole(&output{}).width)
	file, err := os.Create(t.TempDir() + "/file")
	require.NoError(t, err)
	defer file.Close()
	require.Nil(t, newConsole(file).width)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer null.Close()
	require.Nil(t, newConsole(null).width, "a character device that is no terminal")

	var out output
	screen := newConsole(&out)
	w := warming{"cups", 3, func(context.Context, warmingHooks) (aside.Warmed, error) {
		return aside.Warmed{Seen: 3, Loaded: 3}, nil
	}}
	w.show(t.Context(), screen, slog.New(slog.NewTextHandler(screen, nil)))
	require.Regexp(t, regexp.MustCompile(`^time=\S+ level=INFO msg="warmed 3 cups in 0s: 3 loaded, 0 fresh, 0 failed"\n$`), out.String())
}

func TestALongListIsCut(t *testing.T) {
	require.Equal(t, "a, b", someOf([]string{"a", "b"}))
	require.Equal(t, "a, b, c, d, e, and 2 more", someOf(strings.Split("abcdefg", "")))
}

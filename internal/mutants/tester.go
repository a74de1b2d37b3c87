package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A tester runs go test, on the code as it is and on mutants.
type tester struct {
	root, tmp string
	log       *log.Logger
	builds    map[binary]*build // of the code as it is; nil where there is none
}

// A command is a go test that mutants ask for.
type command struct {
	args string // of a test: header
	race bool
}

func (c command) String() string {
	if c.race {
		return "go test -race " + c.args
	}
	return "go test " + c.args
}

// timeout is that of a command whose header has none.
const timeout = "-timeout=120s"

// run runs the command on a mutant. What it logs has the output only of commands that fail.
func (t *tester) run(ctx context.Context, what string, c command, overlay string) *outcome {
	// The arguments of the header come last, so that its -timeout wins. Vet is off: what it has to say about a mutant is
	// neither a failed test nor a failed build.
	args := []string{"test", "-json", "-vet=off", "-count=1", timeout, "-race=" + strconv.FormatBool(c.race), "-overlay=" + overlay}
	return t.judged(exec.CommandContext(ctx, "go", append(args, strings.Fields(c.args)...)...), t.root, what, c)
}

// of is the binary that a command needs, and the flags for it. A command of several packages has none.
func (c command) of() (b binary, flags []string, ok bool) {
	words := strings.Fields(c.args)
	if len(words) < 2 || !strings.HasPrefix(words[0], ".") || !strings.HasPrefix(words[1], "-") {
		return binary{}, nil, false
	}
	for _, flag := range words[1:] {
		if name, ok := strings.CutPrefix(flag, "-"); ok {
			flag = "-test." + name
		}
		flags = append(flags, flag)
	}
	return binary{words[0], c.race}, flags, true
}

// asItIs runs the command on the code as it is, by a binary where there is one.
func (t *tester) asItIs(ctx context.Context, c command) *outcome {
	const what = "as it is"
	b, flags, _ := c.of()
	if built := t.builds[b]; built != nil {
		return t.runBinary(ctx, what, c, built.file, flags)
	}
	return t.run(ctx, what, c, "")
}

// judged runs cmd, which is how a command is carried out, in a folder.
func (t *tester) judged(cmd *exec.Cmd, dir, what string, c command) *outcome {
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "ASIDE_REQUIRE_REDIS=1", "ASIDE_TEST_BOUND=6s")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	began := time.Now()
	events, err := cmd.CombinedOutput()
	o := judge(string(events), err)
	if err == nil {
		t.log.Printf("%s: %s: passes (%s)", what, c, seconds(time.Since(began)))
	} else {
		t.log.Printf("%s: %s: %v (%s)\n%s", what, c, err, seconds(time.Since(began)), o.output)
	}
	return o
}

// An outcome is what one go test has shown.
type outcome struct {
	err      error           // of the command; nil when all has passed
	ran      map[string]bool // by package, whether a test of it has begun
	failed   []string        // the tests that failed
	skipped  []string
	noBuild  bool
	timedOut bool
	output   string
}

// judge reads the events of a go test -json that ended with err.
func judge(events string, err error) *outcome {
	o := &outcome{err: err, ran: map[string]bool{}}
	running, failed := map[string][]string{}, map[string][]string{} // tests by package
	for line := range strings.Lines(events) {
		var e struct{ Action, Package, Test, Output string }
		if json.Unmarshal([]byte(line), &e) != nil {
			e.Output = line // of the go command itself
		}
		o.output += e.Output
		if strings.HasPrefix(e.Output, "panic: test timed out after ") || strings.HasPrefix(e.Output, "*** Test killed ") {
			o.timedOut = true
		}
		switch {
		case e.Action == "build-fail":
			o.noBuild = true
		case e.Action == "start":
			o.ran[e.Package] = false
		case e.Action == "run":
			o.ran[e.Package] = true
			running[e.Package] = append(running[e.Package], e.Test)
		case e.Test == "" && e.Action == "fail": // the package, after its tests
			names := failed[e.Package]
			if len(names) == 0 {
				names = running[e.Package] // the process has died under them
			}
			if len(names) == 0 && o.ran[e.Package] {
				names = []string{path.Base(e.Package) + ".TestMain"} // after them all: a leak, say
			}
			for _, n := range names { // of TestX and TestX/case only the latter
				if !slices.ContainsFunc(names, func(other string) bool { return strings.HasPrefix(other, n+"/") }) {
					o.failed = append(o.failed, n)
				}
			}
		case e.Test != "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip"):
			running[e.Package] = slices.DeleteFunc(running[e.Package], func(t string) bool { return t == e.Test })
			switch e.Action {
			case "fail":
				failed[e.Package] = append(failed[e.Package], e.Test)
			case "skip":
				o.skipped = append(o.skipped, e.Test)
			}
		}
	}
	o.timedOut = o.timedOut && len(failed) == 0 // a test that failed before another one hung has failed
	return o
}

// unfit says why a command is of no use for mutants when this is its outcome on the code as it is: a test can only catch
// what it passes without.
func (o *outcome) unfit() string {
	for pkg, ran := range o.ran {
		if o.err == nil && !ran {
			return fmt.Sprintf("runs no test of %s: has it another name now?", pkg)
		}
	}
	switch {
	case o.err != nil:
		return fmt.Sprintf("does not pass on the code as it is (%v):\n%s", o.err, tail(o.output))
	case len(o.ran) == 0:
		return "finds no package: has it another name now?\n" + tail(o.output)
	case len(o.skipped) > 0:
		return fmt.Sprintf("skips %s: narrow the -run down, or let them run here", strings.Join(o.skipped, " "))
	}
	return ""
}

// baseline runs every distinct command on the code as it is, for which the tests of each package are built once. Mutants with one that is of no use are broken. It returns the
// number of commands.
func (t *tester) baseline(ctx context.Context, rows []*row, jobs int) int {
	var commands []command
	users := map[command][]*row{}
	for _, r := range rows {
		for _, args := range r.mutant.tests {
			c := command{args, r.mutant.race}
			if r.broken == "" && users[c] == nil {
				commands = append(commands, c)
			}
			if r.broken == "" {
				users[c] = append(users[c], r)
			}
		}
	}
	var needed []binary
	for _, c := range commands {
		if b, _, ok := c.of(); ok && !slices.Contains(needed, b) {
			needed = append(needed, b)
		}
	}
	built := make([]*build, len(needed))
	parallel(jobs, len(needed), func(i int) { built[i] = t.prepare(ctx, needed[i], strconv.Itoa(i)) })
	t.builds = map[binary]*build{}
	for i, b := range needed {
		t.builds[b] = built[i]
	}
	why := make([]string, len(commands))
	parallel(jobs, len(commands), func(i int) { why[i] = t.asItIs(ctx, commands[i]).unfit() })
	for i, c := range commands {
		for _, r := range users[c] {
			if why[i] != "" {
				r.broken = fmt.Sprintf("%s %s", c, why[i])
			}
		}
	}
	return len(commands)
}

// try runs the tests of a mutant with the guard taken out, and notes in its row what they show.
func (t *tester) try(ctx context.Context, r *row) {
	began := time.Now()
	defer func() { r.took = time.Since(began) }()
	overlay, err := t.overlay(r)
	if err != nil {
		r.broken = err.Error()
		return
	}
	for n := 0; n < r.mutant.tries && len(r.caught) == 0; n++ {
		for _, args := range r.mutant.tests {
			c := command{args, r.mutant.race}
			o := t.relinked(ctx, r, c, overlay)
			if o == nil || len(o.failed) == 0 { // it may have survived because its importers have a copy of the guard
				o = t.run(ctx, r.name, c, overlay)
			}
			switch {
			case o.noBuild:
				r.broken = "the mutant does not compile:\n" + tail(o.output)
			case o.timedOut && !r.mutant.hangs:
				r.broken = fmt.Sprintf("%s runs into the timeout in %s; if that is how its loss shows, say hangs: yes", c, strings.Join(o.failed, " "))
			case o.err != nil && len(o.failed) == 0:
				r.broken = fmt.Sprintf("%s ends before any test runs (%v):\n%s", c, o.err, tail(o.output))
			}
			if r.broken != "" {
				return
			}
			r.caught = append(r.caught, o.failed...)
		}
	}
}

// overlay writes the mutated files and the list of them that go test -overlay wants, and returns the path of that list.
func (t *tester) overlay(r *row) (string, error) {
	texts, err := r.mutant.apply(t.root)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(t.tmp, r.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, text := range texts {
		before, err := os.ReadFile(filepath.Join(t.root, filepath.FromSlash(file)))
		if err != nil {
			return "", err
		}
		mutated := filepath.Join(dir, strconv.Itoa(len(replace))+"-"+path.Base(file))
		if err := os.WriteFile(mutated, []byte(aligned(string(before), text)), 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(t.root, filepath.FromSlash(file))] = mutated
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o644)
}

// tail keeps a table readable below which outputs stand: -v has all of them.
func tail(output string) string {
	lines := strings.SplitAfter(output, "\n")
	if cut := len(lines) - 30; cut > 0 {
		return fmt.Sprintf("... %d lines more with -v\n", cut) + strings.Join(lines[cut:], "")
	}
	return output
}

// Mutants shows that each consistency rule of this library is held by a test. A mutant takes the guard of one rule out of
// the code; the tests named with it must then fail. Where they pass all the same, the rule is only written down. From the
// root of the repository:
//
//	go run ./internal/mutants [-run regexp] [-j n] [-v]
//
// It first runs each test command on the code as it is, where the tests must run, pass and not be skipped, then once for
// each mutant. The tree is never touched: mutants are compiled with go test's -overlay. The exit status is 1 when a mutant
// survived or is broken. -run selects by file name, without .mutant.
//
// # How to add a mutant
//
// Write a file internal/mutants/list/NAME.mutant; begin its name with the number of the hazard, 03-, so that -run ^03-
// finds it:
//
//	# Why the guard is there, if the rule does not say it.
//	hazard: 3
//	rule: a load that began before a delete is not stored after it
//	test: ./internal/near -run TestALoadThatBeganBeforeADeleteIsNotStoredAfterIt$
//	file: internal/near/near.go
//	<<<<
//		if fence.Broken() {
//			return false
//		}
//	====
//		_ = fence.Broken()
//	>>>>
//
// These headers come before the first file, in any order:
//
//	hazard: 3   the number of the hazard.
//	rule: ...   the rule that the guard upholds, in one line.
//	test: ...   packages and flags for go test, split at spaces; no shell sees them, so there are no quotes. Of several
//	            such lines all are run, and one that fails is enough. A -timeout here replaces the 120s.
//	race: yes   with the race detector, for a guard whose loss is a data race and nothing else.
//	tries: 5    run the tests up to so often until one fails, for tests that play with chance.
//	hangs: yes  a test that runs into its timeout counts as failed. Give a short -timeout then.
//
// Then follow the edits. In each block the text between <<<< and ==== must occur exactly once in the file, and gives way
// to the text between ==== and >>>>, which may be empty. Both are taken as they stand, tabs included, but for the newline
// at their ends, so part of a line will do. A file may have several blocks, applied in order; more files may follow, each
// with its own file: line. Empty lines and lines that begin with # are ignored outside of blocks.
//
// A mutant should be what a hurried change could leave behind: it compiles (variables that the guard alone used need an
// `_ =`) and is no more wrong than the missing guard makes it. One that does not compile is broken, not caught; so is one
// whose old text is gone because the code has moved on, which TestTheListIsUpToDate says too.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// listDir is where the mutants are, from the root of the repository.
const listDir = "internal/mutants/list"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	root, err := os.Getwd()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
	status := run(ctx, root, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// A row is what became of one mutant.
type row struct {
	name   string
	mutant *mutant // what there is of it when its file is malformed
	caught []string
	broken string // why nothing can be said of the mutant
	took   time.Duration
}

// String tells what became of it in one line.
func (r *row) String() string {
	verdict := "caught"
	switch {
	case r.broken != "":
		verdict = "BROKEN"
	case len(r.caught) == 0:
		verdict = "SURVIVED"
	}
	return fmt.Sprintf("%s: %s (%s)", r.name, verdict, seconds(r.took))
}

// shared is a writer for several at once.
type shared struct {
	mu sync.Mutex
	to io.Writer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to.Write(p)
}

// run is the command; it returns the exit status. The table goes to stdout, all else to stderr.
func run(ctx context.Context, root string, args []string, stdout, stderr io.Writer) int {
	stderr = &shared{to: stderr}
	fail := func(status int, format string, a ...any) int {
		fmt.Fprintf(stderr, "mutants: "+format+"\n", a...)
		return status
	}
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("run", "", "only the mutants whose name matches this regular `expression`")
	jobs := flags.Int("j", 2, "run so many go test at a time")
	verbose := flags.Bool("v", false, "print each command as it ends, with the output of those that fail")
	if flags.Parse(args) != nil {
		return 2 // Parse has said why
	}
	match, err := regexp.Compile(*only)
	if err != nil || flags.NArg() > 0 || *jobs < 1 {
		return fail(2, "want [-run regexp] [-j n] [-v], n at least 1, not %q", args)
	}
	rows, err := load(root, match)
	if err != nil {
		return fail(1, "%v", err)
	}
	if len(rows) == 0 {
		return fail(1, "no mutant in %s has a name that matches %q; this runs from the root of the repository", listDir, *only)
	}
	for _, r := range rows {
		if r.broken != "" {
			fmt.Fprintln(stderr, r.broken) // at once: the others may take minutes
		}
	}
	tmp, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return fail(1, "%v", err)
	}
	defer os.RemoveAll(tmp)

	t := &tester{root: root, tmp: tmp, log: log.New(io.Discard, "", 0)}
	if *verbose {
		t.log.SetOutput(stderr)
	}
	began := time.Now()
	commands := t.baseline(ctx, rows, *jobs)
	fmt.Fprintf(stderr, "test commands on the code as it is: %d (%s)\n", commands, seconds(time.Since(began)))
	parallel(*jobs, len(rows), func(i int) {
		if rows[i].broken == "" {
			t.try(ctx, rows[i])
		}
		if ctx.Err() == nil {
			fmt.Fprintln(stderr, rows[i]) // what is known already when a run of an hour is cut off
		}
	})
	if ctx.Err() != nil {
		return fail(1, "interrupted")
	}
	return report(stdout, rows)
}

// load reads the mutants whose name matches, and checks that they fit the code.
func load(root string, match *regexp.Regexp) ([]*row, error) {
	files, _ := filepath.Glob(filepath.Join(root, listDir, "*.mutant")) // it fails for malformed patterns only
	var rows []*row
	for _, file := range files {
		r := &row{name: strings.TrimSuffix(filepath.Base(file), ".mutant")}
		if !match.MatchString(r.name) {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		r.mutant, err = parse(listDir+"/"+filepath.Base(file), string(text))
		if err == nil {
			_, err = r.mutant.apply(root)
		}
		if err != nil {
			r.broken = err.Error()
		}
		rows = append(rows, r)
	}
	slices.SortStableFunc(rows, func(a, b *row) int { return a.mutant.hazard - b.mutant.hazard })
	return rows, nil
}

// report prints the table, why mutants are broken, and the summary; it returns the exit status.
func report(w io.Writer, rows []*row) int {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "HAZARD\tMUTANT\tRULE\tCAUGHT BY\tTIME")
	var notes, hazards []string
	caught := 0
	for _, r := range rows {
		hazard, by := strconv.Itoa(r.mutant.hazard), ""
		switch {
		case r.broken != "":
			by = "BROKEN, see below"
			notes = append(notes, r.name+": "+r.broken)
		case len(r.caught) == 0:
			by = "SURVIVED"
			notes = append(notes, fmt.Sprintf("%s: no test fails without the guard: %s", r.name, strings.Join(r.mutant.tests, "; ")))
		default:
			caught++
			if by = strings.Join(r.caught[:min(3, len(r.caught))], " "); len(r.caught) > 3 {
				by += fmt.Sprintf(" and %d more", len(r.caught)-3)
			}
			if !slices.Contains(hazards, hazard) {
				hazards = append(hazards, hazard)
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", hazard, r.name, r.mutant.rule, by, seconds(r.took))
	}
	table.Flush()
	for _, n := range notes {
		fmt.Fprintf(w, "\n%s\n", strings.TrimRight(n, "\n"))
	}
	fmt.Fprintf(w, "\nmutants: %d of %d caught, hazards %s\n", caught, len(rows), strings.Join(hazards, " "))
	if caught < len(rows) {
		return 1
	}
	return 0
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

// parallel calls f(0) to f(n-1), so many at a time as there are jobs.
func parallel(jobs, n int, f func(int)) {
	var wg sync.WaitGroup
	free := make(chan struct{}, jobs)
	for i := range n {
		free <- struct{}{}
		wg.Go(func() {
			f(i)
			<-free
		})
	}
	wg.Wait()
}

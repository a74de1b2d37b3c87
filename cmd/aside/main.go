// Command aside shows and changes what the caches of a program have in Redis, and examines the Redis. See docs/cli.md, or run it without
// arguments.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// The exit codes.
const (
	exitOK      = 0
	exitFinding = 1 // something was found, or could not be done
	exitUsage   = 2
)

// A verb is one thing that the command does.
type verb struct {
	name, arguments, does string
	details               string // for -h, behind the usage
	where                 string // what it works on: redis, api, or nothing
	prepare               func(*flag.FlagSet) action
}

// An action carries a verb out, when its flags are parsed.
type action func(ctx context.Context, c *call) error

// A call is one run of the command.
type call struct {
	*connection
	args     []string // those that are no flags
	json     bool
	out, err io.Writer
}

func verbs() []verb {
	return []verb{inspectVerb, listVerb, invalidateVerb, hashVerb, doctorVerb, tailVerb, statsVerb, watchVerb}
}

// errFinding ends the command with exit code 1. What was found is printed already.
var errFinding = errors.New("a finding")

// errInterrupted ends the command when a person does.
var errInterrupted = errors.New("interrupted")

// interrupted reports whether a person has ended the command. The time limits of verbs end their contexts too.
func interrupted(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// A usageError ends the command with exit code 2.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	if len(args) == 0 || isHelp(args[0]) && len(args) == 1 {
		printHelp(out)
		if len(args) == 0 {
			return exitUsage
		}
		return exitOK
	}
	if args[0] == "help" {
		args = []string{args[1], "-h"}
	}
	all := verbs()
	i := slices.IndexFunc(all, func(v verb) bool { return v.name == args[0] })
	if i < 0 {
		var names []string
		for _, v := range all {
			names = append(names, v.name)
		}
		fmt.Fprintf(errs, "aside: there is no verb %q: the verbs are %s; aside -h explains them\n", args[0], strings.Join(names, ", "))
		return exitUsage
	}
	return all[i].run(ctx, args[1:], out, errs)
}

func isHelp(arg string) bool { return slices.Contains([]string{"-h", "-help", "--help", "help"}, arg) }

func (v verb) run(ctx context.Context, args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet(v.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	c := &call{connection: &connection{}, out: out, err: errs}
	c.register(flags, v.where)
	flags.BoolVar(&c.json, "json", false, "print JSON")
	do := v.prepare(flags)
	var err error
	if c.args, err = parse(flags, args); errors.Is(err, flag.ErrHelp) {
		v.printHelp(out, flags)
		return exitOK
	}
	switch {
	case err != nil:
		err = usage("%v", err)
	case v.where != "" && c.timeout <= 0:
		err = usage("-timeout is not positive")
	default:
		err = do(ctx, c)
	}
	var wrong *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFinding):
		return exitFinding
	case errors.As(err, &wrong):
		fmt.Fprintf(errs, "aside %s: %s\nusage: %s; aside %s -h explains it\n", v.name, oneLine(wrong.text), v.synopsis(), v.name)
		return exitUsage
	}
	if interrupted(ctx) {
		err = errInterrupted
	}
	c.complain(v.name, err)
	return exitFinding
}

// complain prints an error, which may have words of a server in it.
func (c *call) complain(verb string, err error) {
	fmt.Fprintf(c.err, "aside %s: %s\n", verb, oneLine(err.Error()))
}

// parse parses flags before, between and behind the arguments, up to a --.
func parse(flags *flag.FlagSet, args []string) (rest []string, err error) {
	var literal []string
	if i := slices.Index(args, "--"); i >= 0 {
		args, literal = args[:i], args[i+1:]
	}
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return append(rest, literal...), nil
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
}

func (v verb) synopsis() string {
	return strings.TrimSpace("aside " + v.name + " [flags] " + v.arguments)
}

func printHelp(w io.Writer) {
	fmt.Fprint(w, `aside shows and changes what a program's caches have in Redis.

    aside VERB [flags] ARGUMENTS
    aside VERB -h                  explains a verb

`)
	for _, v := range verbs() {
		fmt.Fprintf(w, "    %-34s %s\n", strings.TrimSpace(v.name+" "+v.arguments), v.does)
	}
	fmt.Fprint(w, `
Redis is where the program's environment says: REDIS_URL, or REDIS_HOST, REDIS_PORT,
REDIS_USERNAME, REDIS_PASSWORD, REDIS_DB and REDIS_TLS. Or give -redis redis://HOST:PORT.
A program with Options.Namespace needs -namespace NAME. stats and watch ask the program itself:
-api URL, with a key of its admin API in ASIDE_API_KEY.

Exit codes: 0; 1, something was found, or could not be done; 2, the command line is wrong.
`)
}

func (v verb) printHelp(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprintf(w, "%s\n\n    %s\n\n%s\n\n", v.does, v.synopsis(), strings.TrimSpace(v.details))
	flags.VisitAll(func(f *flag.Flag) {
		kind, text := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
			text += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "    %-20s %s\n", strings.TrimSpace("-"+f.Name+" "+kind), text)
	})
}

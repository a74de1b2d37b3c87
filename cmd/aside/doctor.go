package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redisstore"
)

var doctorVerb = verb{
	name: "doctor", arguments: "", does: "examines the Redis: connection, permissions, eviction, tracking, latency, and a sample of its keys",
	details: `
Each line is ok, warn or fail, or says what could not be examined and why. What to do stands
below it. It writes and removes keys that begin with %doctor:, and probes the server as a process
does; no value is changed. docs/redis.md has the permissions that it needs. The exit code is 1 if
a line is warn or fail.`,
	where: onRedis,
	prepare: func(flags *flag.FlagSet) action {
		budget := flags.Duration("op-timeout", 50*time.Millisecond, "`DURATION` in Options.OpTimeout of the program")
		return func(ctx context.Context, c *call) error { return doctor(ctx, c, *budget) }
	},
}

// The levels of a finding.
const (
	levelOK      = "ok"
	levelWarn    = "warn"
	levelFail    = "fail"
	levelUnknown = "not checked"
)

// A finding is a line of doctor.
type finding struct {
	Check  string `json:"check"`
	Node   string `json:"node,omitempty"` // of a cluster
	Level  string `json:"level"`
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"`
}

// An examination is one run of doctor.
type examination struct {
	options  aside.Options
	prefix   string
	budget   time.Duration
	own      string         // key of this run
	client   rueidis.Client // without tracking
	findings []finding
	node     string
}

func (x *examination) add(check, level, advice, format string, args ...any) {
	f := finding{check, x.node, level, fmt.Sprintf(format, args...), advice}
	if level == levelOK {
		f.Advice = ""
	}
	x.findings = append(x.findings, f)
}

// unchecked notes that a check could not be made.
func (x *examination) unchecked(check string, err error) {
	x.add(check, levelUnknown, "", "%s", reason(err))
}

// reason says what went wrong, without what a server may quote.
func reason(err error) string {
	if why, denied := denial(err); denied {
		return why
	}
	switch {
	case errors.Is(err, errNoSetting):
		return err.Error()
	case errors.Is(err, rueidis.ErrNoCache):
		return "the server refuses CLIENT TRACKING, or the user may not send it"
	}
	return redisstore.Describe(err)
}

// denial is what the user may not run.
func denial(err error) (string, bool) {
	var e *rueidis.RedisError
	if !errors.As(err, &e) || !strings.HasPrefix(e.Error(), "NOPERM") {
		return "", false
	}
	_, rest, _ := strings.Cut(e.Error(), "run the '")
	command, _, found := strings.Cut(rest, "'")
	if !found || len(command) > 30 {
		command = "of a key"
	}
	return "NOPERM " + oneLine(command), true
}

func doctor(ctx context.Context, c *call, budget time.Duration) error {
	switch {
	case len(c.args) > 0:
		return usage("it takes no arguments")
	case budget <= 0:
		return usage("-op-timeout is not positive")
	}
	o, err := c.options()
	if err != nil {
		return err
	}
	x := &examination{options: o, prefix: c.prefix(), budget: budget}
	x.own = x.prefix + "%doctor:" + rand.Text()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if x.connect(ctx, c) {
		defer x.client.Close()
		x.examine(ctx)
	}
	if interrupted(ctx) {
		return errInterrupted // most checks say that they could not be made, or less
	}
	return x.print(c)
}

// connect connects as a program does, which tries all commands, and then with a client of its own.
func (x *examination) connect(ctx context.Context, c *call) bool {
	store, err := c.store(ctx)
	var wrong *usageError
	if errors.As(err, &wrong) {
		x.add("connection", levelFail, "", "%s", wrong.text)
		return false
	}
	if err == nil {
		store.Close()
	}
	opt := x.options.Redis
	opt.DisableCache, opt.DisableRetry, opt.ClientSetInfo = true, true, rueidis.DisableClientSetInfo
	opt.Dialer.Timeout = c.timeout
	client, raw := rueidis.NewClient(opt)
	switch {
	case raw != nil && err == nil:
		err = errors.New(redisstore.Describe(raw))
		fallthrough
	case raw != nil:
		x.add("connection", levelFail, "", "%v", err)
		return false
	case err != nil:
		x.add("connection", levelFail, "a process of the program does without Redis: see docs/messages.md", "%v", err)
	default:
		x.add("connection", levelOK, "", "%s: a process of the program would use it", strings.Join(x.options.Redis.InitAddress, ", "))
	}
	x.client = client
	return true
}

// examine makes all checks. A cluster's nodes are examined one by one.
func (x *examination) examine(ctx context.Context) {
	x.certificate(ctx)
	x.permissions(ctx)
	x.tracking(ctx)
	nodes := x.client.Nodes()
	for _, addr := range slices.Sorted(maps.Keys(nodes)) {
		if x.node = ""; len(nodes) > 1 {
			x.node = addr
		}
		x.server(ctx, nodes[addr], len(nodes) > 1)
	}
}

func (x *examination) print(c *call) error {
	var err error
	if c.json {
		err = writeJSON(c, x.findings)
	} else {
		w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
		for _, f := range x.findings {
			node := ""
			if f.Node != "" {
				node = f.Node + ": "
			}
			fmt.Fprintf(w, "%s\t%s\t%s%s\n", f.Level, f.Check, node, oneLine(f.Text))
			if f.Advice != "" {
				fmt.Fprintf(w, "\t\t→ %s\n", f.Advice)
			}
		}
		err = w.Flush()
	}
	for _, f := range x.findings {
		if err == nil && (f.Level == levelWarn || f.Level == levelFail) {
			return errFinding
		}
	}
	return err
}

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// soon is how long before its end a certificate is warned of.
const soon = 30 * 24 * time.Hour

// certificate looks at the certificate of the first address.
func (x *examination) certificate(ctx context.Context) {
	const check = "tls"
	conf := x.options.Redis.TLSConfig
	if conf == nil {
		x.add(check, levelOK, "", "not in use")
		return
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: opTimeout}, Config: conf}
	conn, err := d.DialContext(ctx, "tcp", x.options.Redis.InitAddress[0])
	if err != nil {
		x.unchecked(check, err)
		return
	}
	defer conn.Close()
	end := conn.(*tls.Conn).ConnectionState().PeerCertificates[0].NotAfter
	level := levelOK
	if time.Until(end) < soon {
		level = levelWarn
	}
	x.add(check, level, "renew the certificate: once it has ended, no process can connect", "the certificate ends on %s", end.UTC().Format(time.DateOnly))
}

// commands are those that a program sends, with arguments that do no harm: the rules of docs/redis.md.
func commands(key string) [][]string {
	return [][]string{
		{"SET", key, "", "PX", "60000"},
		{"GET", key},
		{"GETRANGE", key, "0", "0"},
		{"STRLEN", key},
		{"SETRANGE", key, "0", "x"},
		{"EXISTS", key},
		{"PEXPIRE", key, "60000"},
		{"PTTL", key},
		{"DEL", key},
		{"UNLINK", key},
		{"SCAN", "0", "COUNT", "1"},
		{"TIME"},
		{"EVAL", "return 1", "1", key},
		{"EVALSHA", strings.Repeat("0", 40), "1", key},
		{"SCRIPT", "LOAD", "return 1"},
		{"PING"},
		{"ECHO", "x"},
		{"HELLO"},
		{"CLIENT", "TRACKING", "OFF"},
		{"CLUSTER", "NODES"},
		{"CLUSTER", "SLOTS"},
	}
}

// permissions asks for each command of a program whether the user may send it, or sends it where that may not be asked.
func (x *examination) permissions(ctx context.Context) {
	const check = "permissions"
	how := "asked by ACL DRYRUN"
	user, err := x.do(ctx, "ACL", "WHOAMI").ToString()
	if err == nil {
		err = x.do(ctx, "ACL", "DRYRUN", user, "PING").Error()
	}
	if err != nil {
		user, how = "", "tried"
	}
	if user == "" {
		defer x.clean(ctx)
	}
	var denied []string
	keys := "~" + x.prefix + "%*"
	if x.prefix != "" {
		keys = "~" + x.prefix + "*"
	}
	for _, command := range commands(x.own) {
		args := command
		if user != "" {
			args = append([]string{"ACL", "DRYRUN", user}, args...)
		}
		text, err := x.do(ctx, args...).ToString()
		if why, is := denial(err); is && user == "" {
			text = why // of a key: see denial
		} else if failed(err) {
			x.unchecked(check, err)
			return
		} else if user == "" || text == "OK" {
			text = ""
		}
		switch {
		case text == "":
		case strings.Contains(text, "key"):
			denied = append(denied, keys)
		default:
			denied = append(denied, "+"+name(command))
		}
	}
	if denied = slices.Compact(denied); len(denied) > 0 {
		x.add(check, levelFail, "give the user what it lacks: ACL SETUSER NAME "+strings.Join(denied, " "), "its user lacks %d rules of those in docs/redis.md", len(denied))
		return
	}
	x.add(check, levelOK, "", "its user may run the %d commands of a cache (%s)", len(commands("")), how)
}

// failed reports whether a command was not answered.
func failed(err error) bool {
	var answer *rueidis.RedisError
	return err != nil && !errors.As(err, &answer) && !rueidis.IsParseErr(err)
}

// clean removes the key of this run, at the end of an interrupted one too.
func (x *examination) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	x.do(ctx, "UNLINK", x.own)
}

// name is how ACL rules call a command.
func name(args []string) string {
	switch args[0] {
	case "SCRIPT", "CLIENT", "CLUSTER":
		return strings.ToLower(args[0] + "|" + args[1])
	}
	return strings.ToLower(args[0])
}

func (x *examination) do(ctx context.Context, args ...string) rueidis.RedisResult {
	return doAt(ctx, x.client, args...)
}

func doAt(ctx context.Context, client rueidis.Client, args ...string) rueidis.RedisResult {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	return client.Do(ctx, client.B().Arbitrary(args...).Build())
}

// tracking reads a key on a connection that tracks, changes it on another one, and waits for the push.
func (x *examination) tracking(ctx context.Context) {
	const check = "tracking"
	const advice = "without pushes, memory keeps values for a second at most: see docs/redis.md, Without client tracking"
	opt := x.options.Redis
	if opt.AlwaysRESP2 || opt.DisableCache {
		x.add(check, levelWarn, "take protocol=2 out of the URL, if the server speaks RESP3: "+advice, "switched off by RESP2")
		return
	}
	pushed := make(chan struct{}, 1)
	opt.DisableRetry, opt.ClientSetInfo, opt.ClientTrackingOptions = true, rueidis.DisableClientSetInfo, []string{"OPTOUT"}
	opt.OnInvalidations = func(messages []rueidis.RedisMessage) {
		if slices.ContainsFunc(messages, func(m rueidis.RedisMessage) bool { name, _ := m.ToString(); return name == x.own }) {
			select {
			case pushed <- struct{}{}:
			default:
			}
		}
	}
	opt.Dialer.Timeout = opTimeout
	client, err := rueidis.NewClient(opt)
	if err == nil {
		defer client.Close()
		if err = doAt(ctx, client, "GET", x.own).Error(); rueidis.IsRedisNil(err) {
			err = nil
		}
	}
	began := time.Now()
	if err == nil {
		err = x.do(ctx, "SET", x.own, "", "PX", "60000").Error()
		defer x.clean(ctx)
	}
	if err != nil {
		x.add(check, levelWarn, advice, "%s", reason(err))
		return
	}
	select {
	case <-pushed:
		x.add(check, levelOK, "", "a change is pushed after %s", show(time.Since(began)))
	case <-ctx.Done():
		x.unchecked(check, ctx.Err())
	case <-time.After(opTimeout):
		x.add(check, levelWarn, advice, "no change was pushed in %s", opTimeout)
	}
}

// latency measures round trips.
func (x *examination) latency(ctx context.Context, node rueidis.Client) {
	const check, trips = "latency", 200
	var took []time.Duration
	for range trips {
		began := time.Now()
		if err := doAt(ctx, node, "ECHO", "x").Error(); err != nil {
			x.unchecked(check, err)
			return
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	p50, p99 := took[trips/2], took[trips*99/100]
	level, advice := levelOK, ""
	switch {
	case p99 > x.budget:
		level, advice = levelFail, fmt.Sprintf("raise Options.OpTimeout to %s or more, or bring the server nearer: such calls go to their loaders", (4*p99).Round(time.Millisecond))
	case p99 > x.budget/2:
		level, advice = levelWarn, fmt.Sprintf("raise Options.OpTimeout to %s or more: one call takes a few round trips", (4*p99).Round(time.Millisecond))
	}
	x.add(check, level, advice, "of %d round trips p50 %s, p99 %s; OpTimeout is %s", trips, show(p50), show(p99), x.budget)
}

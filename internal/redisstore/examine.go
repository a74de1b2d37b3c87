package redisstore

import (
	"context"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// A server can answer, and yet always refuse what a cache needs: a command that is renamed, or that its user may not run, by itself or
// in a script. An invalidation that is refused reaches no process, and all go on with the old value unawares. So before a server is
// used, everything that will be sent is tried on names of this process, and again when a call is refused later. A call may be refused
// for its key alone, which does not affect others.

// A refusal is the error of a server that refuses a command that is needed.
type refusal struct {
	command string
	err     error // the server's
}

func (r *refusal) Error() string { return r.command + ": " + r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// describe is for the person who has to fix it. The command is one of this package's, and so no secret.
func (r *refusal) describe(code string) string {
	text := "redis answered " + code + " to " + r.command
	if why := advice(code); why != "" {
		return text + ": " + why
	}
	return text + ": the command is renamed or switched off there, and a cache cannot do without it; docs/redis.md lists all of them"
}

// isUnusual reports whether an answer may mean that a command is refused for every key. Errors that are known to be about a key,
// or about the moment, do not mean that.
func isUnusual(err error) bool {
	if err == nil || rueidis.IsRedisNil(err) {
		return false
	}
	c := code(err)
	return c == "NOPERM" || c != "" && classOf(err) == answer && !slices.Contains(usual, c)
}

// usual are errors of a server that runs all commands: out of memory it still removes.
var usual = []string{"OOM", "NOSCRIPT", "WRONGTYPE", "NOCHUNK", "MOVED", "ASK", "TRYAGAIN", "CROSSSLOT"}

// recheckEvery is how often a server is examined where nothing was refused. A process that only reads from memory would not notice
// that others can no longer invalidate its values.
const recheckEvery = time.Minute

// examine finds out, when a command was refused, whether it is refused for every key, until ctx ends. If so, no caller is sent to
// the server until that is fixed.
func (l *link) examine(ctx context.Context, s *session) {
	for {
		often := time.NewTimer(recheckEvery/2 + rand.N(recheckEvery/2))
		select {
		case <-ctx.Done():
			often.Stop()
			return
		case <-s.suspect:
		case <-often.C:
		}
		often.Stop()
		trying, over := context.WithTimeout(ctx, dialTimeout)
		err := l.onConnect(trying, s.client)
		over()
		switch {
		case classOf(err) == refused:
			l.trip(s, err)
		case err != nil:
			signal(s.suspect) // without a result
		}
		t := time.NewTimer(recheckPause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// A trial is one command that is tried.
type trial struct {
	command string // its name in errors; in a script refusedCommand finds it
	script  *script
	cmd     rueidis.Completed
}

// checkCommands tries all commands that will be sent to a server: each script on names of this process, and each single command.
// It takes one round trip, or two where the server does not have the scripts.
func (s *Store) checkCommands(ctx context.Context, l *link, c rueidis.Client) error {
	for _, sha := range []bool{true, false} {
		trials := s.trials(l, c.B(), sha)
		cmds := make(rueidis.Commands, len(trials))
		for i, t := range trials {
			cmds[i] = t.cmd
		}
		again, silent, old := false, false, false
		for i, r := range c.DoMulti(ctx, cmds...) {
			err := r.Error()
			switch known := code(err); {
			case known == "NOSCRIPT":
				again = true
			case trials[i].command == publish && known != "":
				// Other processes notice changes when their values are UntrackedLife old, a second. State.Silent reports that. It is
				// no reason to do without the server.
				silent = true
			case trials[i].script == fillEmpty && known == "ERR":
				old = true // fill does the same
			case known == "MISCONF", known == "NOREPLICAS", classOf(err) == answer && known != "" && !slices.Contains(usual, known):
				return &refusal{trials[i].refusedCommand(err), err}
			case known == "NOPERM":
				return &refusal{trials[i].refusedCommand(err), err}
			case classOf(err) != answer:
				return err
			}
		}
		l.setSilent(silent)
		l.noPXAT.Store(old)
		if !again {
			break
		}
	}
	return nil
}

// setSilent notes whether the server lets this process announce changes. Each client that is made finds that out, the one in use
// and those beside it. The state of the link follows all of them.
func (l *link) setSilent(silent bool) {
	l.silent.Store(silent)
	if s := l.latest.Load(); s != nil {
		signal(s.silence)
	}
}

const publish = "PUBLISH"

// trials are all commands, in an order in which each script can do all its work: seize and fill prepare what the others need.
// Scripts go by their hashes, as usual, or in full where the server has none of them.
func (s *Store) trials(l *link, b rueidis.Builder, sha bool) []trial {
	k := l.ownName(probeName)
	pair := []string{k, s.partner(k)}
	const nonce, life = "none", probeLife
	ms := strconv.FormatInt(life.Milliseconds(), 10)
	now, _, _ := l.clock.Now()
	value := s.format.least
	until := strconv.FormatInt(now+life.Microseconds(), 10)
	seizes := call{seize, pair, []string{nonce, ms}}
	list := []trial{
		{command: "SET", cmd: b.Set().Key(k).Value("").Px(life).Build()},
		{command: "GETRANGE", cmd: b.Getrange().Key(k).Start(0).End(0).Build()},
		{command: "STRLEN", cmd: b.Strlen().Key(k).Build()},
		{command: "EVAL", script: renew, cmd: b.Eval().Script(renew.text).Numkeys(2).Key(pair...).Arg(nonce, ms).Build()},
	}
	for _, run := range []call{
		seizes,
		{renew, pair, []string{nonce, ms}},
		{fill, pair, append([]string{nonce, value, until, "0"}, s.format.args...)},
		seizes,
		{restamp, pair, append([]string{nonce, value[max(0, len(value)-12):], value, strconv.Itoa(len(value)), until, "0", ""}, s.format.args...)},
		{discard, pair[:1], append([]string{"9007199254740991"}, s.format.args...)},
		{bump, pair[:1], []string{ms}},
		{ensure, pair[:1], []string{ms, ms}},
		{sweep, pair[:1], slices.Concat(s.format.args, s.format.tags)},
		{remove, pair, s.format.args},
		seizes,
		{fillEmpty, pair, []string{nonce, value, strconv.FormatInt((now+life.Microseconds())/1000, 10)}},
		{remove, pair, s.format.args},
		{acquire, pair, []string{nonce, ms, "", "", s.leaseLife.longest, ""}},
		{release, pair, []string{nonce, "", "0"}},
		{forget, pair[:1], append([]string{nonce, "0"}, s.format.args...)},
		{writeProbe, pair[:1], []string{"", ms}},
		{writeWatermark, pair[:1], []string{"0", "0", ms}},
		{remove, pair, s.format.args},
		seizes,
		{acquire, pair, []string{nonce, ms, "", "", s.leaseLife.longest, ""}},
		{erase, pair, s.format.args},
		seizes,
		{remove, pair, s.format.args},
	} {
		t := trial{command: "EVALSHA", script: run.script}
		if sha {
			t.cmd = b.Evalsha().Sha1(run.script.sha1).Numkeys(int64(len(run.keys))).Key(run.keys...).Arg(run.args...).Build()
		} else {
			t.command = "EVAL"
			t.cmd = b.Eval().Script(run.script.text).Numkeys(int64(len(run.keys))).Key(run.keys...).Arg(run.args...).Build()
		}
		list = append(list, t)
	}
	if l.scans.Load() {
		list = append(list, trial{command: "SCAN", cmd: b.Scan().Cursor(0).Match(k).Count(1).Build()})
	}
	if l.ownerOfAll() && !l.Tracked() {
		// No process takes this for an announcement: it names no key.
		list = append(list, trial{command: publish, cmd: b.Publish().Channel(s.channel()).Message(s.announcements.self).Build()})
	}
	return list
}

// ownerOfAll reports whether the server is the only one. Its clients may have to announce changes.
func (l *link) ownerOfAll() bool { return l.subscribe != nil }

// partner is a name of this process in the slot of another name, as the lease of a key is in the slot of the key.
func (s *Store) partner(name string) string { return s.namespace.name("%{" + name + "}") }

// A server's error inside of a script names the line, and from version 7 on not always the command.
var (
	inScript = regexp.MustCompile(`user_script:(\d+)`)
	calls    = regexp.MustCompile(`redis\.p?call\('(\w+)'`)
)

// refusedCommand is the command that a server has refused.
func (t *trial) refusedCommand(err error) string {
	at := inScript.FindStringSubmatch(err.Error())
	if t.script == nil || at == nil {
		return t.command
	}
	lines := strings.Split(t.script.text, "\n")
	if n, _ := strconv.Atoi(at[1]); n >= 1 && n <= len(lines) {
		if found := calls.FindStringSubmatch(lines[n-1]); found != nil {
			return found[1] + " in a script"
		}
	}
	return t.command
}

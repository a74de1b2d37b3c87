package redisstore

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/gatewayz/aside/internal/redistest"
)

func TestEveryScriptIsTried(t *testing.T) {
	t.Parallel()
	s := connected(t, redistest.Start(t).Addr())
	tried := make(map[*script]bool)
	for _, trial := range s.trials(only(s), only(s).session.Load().client.B(), true) {
		tried[trial.script] = true
	}
	for _, script := range scripts {
		require.True(t, tried[script], script.text)
	}
}

// needed are the commands without which a server is of no use.
var needed = []string{"DEL", "EVALSHA", "EXISTS", "GETRANGE", "PEXPIRE", "PTTL", "SET", "SETRANGE", "STRLEN", "TIME", "UNLINK"}

// away waits until a store is not up for a reason that says all of words.
func away(t *testing.T, s *Store, words ...string) {
	t.Helper()
	require.Eventually(t, func() bool {
		state := s.State()
		if state.Up || state.Cause == nil {
			return false
		}
		for _, word := range words {
			if !strings.Contains(Describe(state.Cause), word) {
				return false
			}
		}
		return true
	}, bound, time.Millisecond, "%v: %v", words, s.State().Cause)
}

func TestAServerThatDoesNotKnowACommandIsNotUsed(t *testing.T) {
	t.Parallel()
	for _, command := range append(needed, "EVAL", "GET") {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, "--rename-command", command, "OTHERWISE")
			s := open(t, Options{Client: clientOf(server.Addr()), Format: format})
			if command == "GET" { // which a tracked read shows first
				require.Eventually(t, func() bool { return s.State().Cause != nil }, bound, time.Millisecond)
				require.False(t, s.State().Up)
				return
			}
			if command == "TIME" { // likewise the clock
				away(t, s, "redis answered ERR")
				return
			}
			away(t, s, "redis answered ERR", command, "renamed")
		})
	}
}

func TestAServerWhoseUserMayNotRunACommandIsNotUsedUntilHeMay(t *testing.T) {
	t.Parallel()
	for _, command := range needed {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			may := func(rule string) { server.MustDo(t, "ACL", "SETUSER", "somebody", rule+strings.ToLower(command)) }
			server.MustDo(t, "ACL", "SETUSER", "somebody", "on", ">a-long-password", "~*", "&*", "+@all")
			may("-")
			o := Options{Client: clientOf(server.Addr()), Format: format}
			o.Client.Username, o.Client.Password = "somebody", "a-long-password"
			s := open(t, o)
			away(t, s, "redis answered NOPERM", "docs/redis.md")
			if command != "TIME" {
				away(t, s, command)
			}
			require.True(t, needsSomebody(s.State().Cause), "it is tried again seldom")
			may("+")
			require.Eventually(t, func() bool { return s.State().Up }, bound, time.Millisecond)
			// Taken away later, it is found out by what is refused.
			may("-")
			require.Eventually(t, func() bool {
				if _, errs := s.Remove(t.Context(), key); errs == nil { // which needs something else
					signal(suspected(s))
				}
				return !s.State().Up
			}, bound, 10*time.Millisecond)
			require.Contains(t, Describe(s.State().Cause), "redis answered NOPERM")
		})
	}
}

// suspected is where a command that is refused is told of, or nowhere.
func suspected(s *Store) chan struct{} {
	if now := only(s).session.Load(); now != nil {
		return now.suspect
	}
	return make(chan struct{}, 1)
}

// A server that cannot save, or has lost its replicas, takes no removals either.
func TestAServerThatTakesNoWritesIsNotUsed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := connected(t, server.Addr())
	server.MustDo(t, "CONFIG", "SET", "min-replicas-to-write", "1")
	_, errs := s.Remove(t.Context(), key)
	require.NotNil(t, errs)
	away(t, s, "redis answered NOREPLICAS", "removals")
	require.False(t, needsSomebody(s.State().Cause))
	server.MustDo(t, "CONFIG", "SET", "min-replicas-to-write", "0")
	require.Eventually(t, func() bool { return s.State().Up }, bound, time.Millisecond)
}

func TestAServerThatIsFullIsUsed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
	s := connected(t, server.Addr())
	_, errs := s.Remove(t.Context(), key)
	require.Nil(t, errs)
}

// A user that may use some keys only is refused the others, and nobody loses the connection for it.
func TestAKeyThatIsForbiddenCostsNobodyTheConnection(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, "ACL", "SETUSER", "limited", "on", ">a-long-password", "~%*", "~cat:*", "~{cat:*", "&*", "+@all")
	var dials, gaps atomic.Int64
	o := Options{Client: clientOf(server.Addr()), Format: format, Gap: func() { gaps.Add(1) }}
	o.Client.Username, o.Client.Password = "limited", "a-long-password"
	o.Client.DialCtxFn = func(ctx context.Context, dst string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		dials.Add(1)
		return d.DialContext(ctx, "tcp", dst)
	}
	s := up(t, o)
	first, before := only(s).session.Load(), dials.Load()
	examined := server.Calls(t, "script|load")
	require.Eventually(t, func() bool {
		_, errs := s.Remove(t.Context(), "foreign:a", key)
		require.NotNil(t, errs)
		require.Error(t, errs[0])
		require.NoError(t, errs[1])
		return server.Calls(t, "script|load") > examined // the server was examined
	}, bound, time.Millisecond)
	for range 100 {
		_, errs := s.Remove(t.Context(), "foreign:a", key)
		require.NoError(t, errs[1])
	}
	require.Same(t, first, only(s).session.Load())
	require.Equal(t, before, dials.Load())
	require.Zero(t, gaps.Load())
	require.Less(t, server.Calls(t, "script|load"), 4*examined, "and not with each of them")
}

// To go through keys is not needed by everybody. Who is refused it needs it.
func TestAServerThatDoesNotScanIsUsedUntilItHasTo(t *testing.T) {
	t.Parallel()
	s := connected(t, redistest.Start(t, "--rename-command", "SCAN", "OTHERWISE").Addr())
	require.Error(t, s.Scan(t.Context(), func([]string) error { return nil }, "cat:*"))
	away(t, s, "SCAN")
}

// Without SCRIPT, scripts travel with their first run; they are tried all the same.
func TestScriptsAreTriedWhereTheServerKeepsThemForItself(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--rename-command", "UNLINK", "OTHERWISE")
	server.MustDo(t, "ACL", "SETUSER", "somebody", "on", ">a-long-password", "~*", "&*", "+@all", "-script")
	o := Options{Client: clientOf(server.Addr()), Format: format}
	o.Client.Username, o.Client.Password = "somebody", "a-long-password"
	away(t, open(t, o), "UNLINK")
}

// On a server that does not track, those who may not announce what they change are told so.
func TestWhoMayNotAnnounceChangesIsToldSo(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, "ACL", "SETUSER", "default", "-client|tracking", "-publish")
	states := make(chan State, 100)
	s := up(t, Options{Client: clientOf(server.Addr()), Format: format, OnState: func(s State) { states <- s }})
	require.True(t, s.State().Silent)
	require.True(t, (<-states).Silent)
	server.MustDo(t, "ACL", "SETUSER", "default", "+publish")
	signal(suspected(s))
	require.Eventually(t, func() bool { return !s.State().Silent }, bound, time.Millisecond)
	server.MustDo(t, "ACL", "SETUSER", "default", "-publish")
	require.Eventually(t, func() bool {
		_, errs := s.Remove(t.Context(), key)
		require.Nil(t, errs)
		return s.State().Silent
	}, bound, 10*time.Millisecond)
	require.True(t, s.State().Up)
}

// The client that listens for what others announce, and any other one beside the one in use, may be the first to find it out.
func TestWhoMayNotAnnounceChangesIsToldSoByAnyClient(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, "ACL", "SETUSER", "default", "-client|tracking", "-publish")
	s := up(t, Options{Client: clientOf(server.Addr()), Format: format})
	require.True(t, s.State().Silent)
	server.MustDo(t, "ACL", "SETUSER", "default", "+publish")
	l := only(s)
	require.NoError(t, l.onConnect(t.Context(), l.session.Load().client)) // as for one more client
	require.Eventually(t, func() bool { return !s.State().Silent }, bound, time.Millisecond)
	require.True(t, s.State().Up)
}

// A server that was too slow to be examined is examined again soon: nothing was found out.
func TestAServerThatCouldNotBeExaminedIsExaminedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked []time.Duration
		began := time.Now()
		l := &link{connector: connector{hanging: new(guard.Hanging)}}
		l.onConnect = func(context.Context, rueidis.Client) error {
			if asked = append(asked, time.Since(began)); len(asked) <= 2 {
				return ErrSlow
			}
			return nil
		}
		s := &session{suspect: make(chan struct{}, 1)}
		signal(s.suspect)
		ctx, end := context.WithTimeout(t.Context(), recheckEvery/2)
		defer end()
		l.examine(ctx, s)
		require.Equal(t, []time.Duration{0, recheckPause, 2 * recheckPause}, asked)
	})
}

func TestARefusalIsDescribedForWhoHasToMendIt(t *testing.T) {
	t.Parallel()
	for code, words := range map[string]string{
		"NOPERM": "permission", "MISCONF": "save", "NOREPLICAS": "replicas", "READONLY": "replica", "ERR": "renamed",
	} {
		text := (&refusal{"UNLINK", net.ErrClosed}).describe(code)
		require.Contains(t, text, "redis answered "+code+" to UNLINK")
		require.Contains(t, text, words)
	}
	fifth := &trial{command: "EVALSHA", script: &script{text: "\n\n\n\nredis.call('DEL', KEYS[1])"}}
	require.Equal(t, "DEL in a script", fifth.refusedCommand(errorAt("user_script:5: no")))
	require.Equal(t, "EVALSHA", fifth.refusedCommand(errorAt("user_script:4: no")))
	require.Equal(t, "EVALSHA", fifth.refusedCommand(errorAt("user_script:6: no")))
	require.Equal(t, "EVALSHA", fifth.refusedCommand(errorAt("no")))
	require.Equal(t, "SET", (&trial{command: "SET"}).refusedCommand(errorAt("user_script:1")))
}

type errorAt string

func (e errorAt) Error() string { return string(e) }

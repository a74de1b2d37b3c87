package redisstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redistest"
)

// tagged is the format of the values of these tests.
var taggedFormat = Format{Magic: "\xc1\xa5", Version: 1, Flags: 3, LoadStart: 8, TagsLen: 16, Tags: 20}

// tagged is a value of that format.
func tagged(version, flags byte, tags ...Current) string {
	section := binary.LittleEndian.AppendUint16(nil, uint16(len(tags)))
	for _, tag := range tags {
		section = binary.LittleEndian.AppendUint16(section, uint16(len(tag.Tag)))
		section = binary.LittleEndian.AppendUint64(append(section, tag.Tag...), tag.Value)
	}
	head := entry(version, flags, 1, "")
	return string(binary.LittleEndian.AppendUint32([]byte(head), uint32(len(section)))) + string(section) + "payload"
}

func TestASweepRemovesOnlyWhatCarriesAnOlderGeneration(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := up(t, Options{Client: clientOf(server.Addr()), Format: taggedFormat})
	const now = uint64(1_763_950_000_123_456) // with all of its low bytes in use
	tags := []Current{{"all", now}, {"c:cat", now - 10}}
	good := tagged(1, 0, Current{"all", now - 1}, Current{"c:cat", now - 10})
	for name, c := range map[string]struct {
		value string
		want  int
	}{
		"older by the first":        {good, 0},
		"older by the second":       {tagged(1, 3, Current{"x", 1}, Current{"all", now}, Current{"c:cat", now - 11}), 1},
		"of now":                    {tagged(1, 0, Current{"all", now}, Current{"c:cat", now - 10}), -1},
		"newer":                     {tagged(1, 0, Current{"all", now + 1}, Current{"c:cat", now}), -1},
		"without the tags":          {tagged(1, 0, Current{"al", 1}, Current{"alll", 1}, Current{"", 1}), -1},
		"without tags":              {tagged(1, 0), -1},
		"of a newer build":          {tagged(2, 0, Current{"all", 1}), -1},
		"with flags of one":         {tagged(1, 4, Current{"all", 1}), -1},
		"of an older layout":        {tagged(0, 0, Current{"all", 1}), -1},
		"foreign":                   {"something else", -1},
		"empty":                     {"", -1},
		"cut in its head":           {good[:19], -1},
		"cut in its tags":           {good[:30], -1},
		"no section":                {good[:16] + "\x00\x00\x00\x00", -1},
		"more tags than there are":  {good[:20] + "\xff\xff" + good[22:], -1}, // the first of them is not looked for any more
		"a name beyond the section": {good[:22] + "\xff\xff" + good[24:], -1},
		"a section without end":     {good[:16] + "\xff\xff\xff\xff" + good[20:], -1},
	} {
		server.MustDo(t, "SET", key, c.value)
		removed, err := s.Sweep(t.Context(), Outdated{Key: key, Tags: tags})
		require.NoError(t, err, name)
		if name == "more tags than there are" {
			c.want = 0 // found before the end
		}
		exists, want := int64(1), map[string]int64{}
		if c.want >= 0 {
			exists, want = 0, map[string]int64{tags[c.want].Tag: 1}
		}
		require.Equal(t, want, removed, name)
		require.Equal(t, exists, server.MustDo(t, "EXISTS", key), name)
	}
	server.MustDo(t, "DEL", key)
	server.MustDo(t, "RPUSH", key, "x")
	server.MustDo(t, "SET", lease, "n")
	removed, err := s.Sweep(t.Context(), Outdated{Key: key, Tags: tags}, Outdated{Key: "none", Tags: tags})
	require.NoError(t, err)
	require.Empty(t, removed)
	require.Equal(t, int64(2), server.MustDo(t, "EXISTS", key, lease), "what is no string, and leases")
}

func TestErasingTakesValuesOfTheFormatAndLeasesAndNothingElse(t *testing.T) {
	t.Parallel()
	everyServer(t, func(t *testing.T, s *Store, do func(...string) any) {
		ours := entry(1, 0, 1, "x")
		do("MSET", "ours", ours, "newer", entry(9, 255, 1, "x"), "foreign", "x", "short", ours[:1], "empty", "", "leased", "x", "{leased}!l", "n", "{absent}!l", "n")
		do("RPUSH", "list", "x")
		removed, err := s.Erase(t.Context(), "ours", "newer", "foreign", "short", "empty", "list", "leased", "absent", "none")
		require.NoError(t, err)
		require.Equal(t, []bool{true, true, false, false, false, false, false, false, false}, removed)
		require.Equal(t, int64(5), do("EXISTS", "foreign", "short", "empty", "list", "leased"))
		require.Equal(t, int64(0), do("EXISTS", "ours", "newer", "{leased}!l", "{absent}!l", "absent"))
	})
}

func TestErasingALeaseTellsWhoHasReadItsKey(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	told := make(chan string, 10)
	s := up(t, Options{Client: clientOf(server.Addr()), Format: format, Pushed: func(key string) { told <- key }})
	tellsOf(t, s, key)
	server.MustDo(t, "SET", lease, "n")
	_, err := s.Erase(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, key, <-told)
}

// tellsOf has the server watch a key.
func tellsOf(t *testing.T, s *Store, key string) {
	t.Helper()
	clock := near.NewClock()
	t.Cleanup(clock.Stop)
	memory := near.New(near.Options{MaxEntries: 1, MaxBytes: 1}, clock)
	t.Cleanup(memory.Close)
	f := memory.Fence(key, nil)
	t.Cleanup(f.End)
	require.NoError(t, s.Get(t.Context(), Get{Key: key, Fence: f})[0].Err)
}

func TestAScanSeesEveryKeyOfEachPattern(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := connected(t, server.Addr())
	for i := range 3000 {
		server.MustDo(t, "MSET", "a:"+strconv.Itoa(i), "", "b:"+strconv.Itoa(i), "")
	}
	seen := map[string]bool{}
	var order []byte
	require.NoError(t, s.Scan(t.Context(), func(keys []string) error {
		for _, k := range keys {
			seen[k] = true
			if n := len(order); n == 0 || order[n-1] != k[0] {
				order = append(order, k[0])
			}
		}
		return nil
	}, "b:*", "a:*"))
	require.Len(t, seen, 6000)
	require.Equal(t, "ba", string(order), "one after the other")
	require.NoError(t, s.Scan(t.Context(), func([]string) error { panic("nothing to see") }))
	wrong := fmt.Errorf("enough")
	require.ErrorIs(t, s.Scan(t.Context(), func([]string) error { return wrong }, ""), wrong)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Scan(ctx, func([]string) error { panic("nothing to see") }, ""), context.Canceled)
}

func TestAScanThatOutlivesItsConnectionIsNoScan(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := connected(t, proxy.Addr())
	for i := range 3000 {
		server.MustDo(t, "SET", "a:"+strconv.Itoa(i), "")
	}
	pages := 0
	err := s.Scan(t.Context(), func([]string) error {
		if pages++; pages == 1 {
			since := s.State().Since
			proxy.CloseConnections()
			require.Eventually(t, func() bool { return s.Up() && s.State().Up && s.State().Since != since }, bound, time.Millisecond)
		}
		return nil
	}, "")
	require.ErrorIs(t, err, ErrMoved)
	require.Equal(t, 1, pages)
	require.NoError(t, s.Scan(t.Context(), func([]string) error { return nil }, ""))
}

func TestWhatGoesOverManyKeysIsSentInSmallPortions(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := connected(t, proxy.Addr())
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = "a:" + strconv.Itoa(i)
	}
	gate := proxy.HoldReplies(func(args []string) bool { return strings.EqualFold(args[0], "GETRANGE") })
	proxy.ResetCounts()
	done := make(chan error)
	go func() { _, err := s.Heads(t.Context(), 10, keys...); done <- err }()
	gate.Wait(t)
	proxy.Await(t, "the rest of the portion", func() bool { return len(heads(proxy)) >= portionSize })
	require.Len(t, heads(proxy), portionSize, "and no more while it is not answered")
	gate.Release()
	require.NoError(t, <-done)
}

// heads are the requests for the first ten bytes of values.
func heads(proxy *redistest.Proxy) [][]string {
	return slices.DeleteFunc(proxy.Log(), func(args []string) bool { return args[0] != "GETRANGE" || args[3] != "9" })
}

// However many go over keys, the server works for one of them at a time, and rests in between.
func TestOnePortionIsSentAtATime(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := connected(t, proxy.Addr())
	gate := proxy.HoldReplies(func(args []string) bool { return strings.EqualFold(args[0], "GETRANGE") })
	proxy.ResetCounts()
	done := make(chan error)
	go func() { _, err := s.Heads(t.Context(), 10, "a"); done <- err }()
	gate.Wait(t)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := s.Heads(short, 10, "b", "c")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, s.Scan(short, func([]string) error { return nil }, ""), context.DeadlineExceeded)
	require.Len(t, heads(proxy), 1)
	require.Empty(t, slices.DeleteFunc(proxy.Log(), func(args []string) bool { return !strings.EqualFold(args[0], "SCAN") }))
	gate.Release()
	require.NoError(t, <-done)
	_, err = s.Heads(t.Context(), 10, "b", "c")
	require.NoError(t, err)
}

func TestAPortionThatFailsSaysNothingToTheBreaker(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	s := up(t, Options{Client: clientOf(proxy.Addr()), Format: format, OpTimeout: 50 * time.Millisecond})
	proxy.SetDelay(40 * time.Millisecond)
	for range 2 * tripAfter {
		_, err := s.Values(t.Context(), "a")
		require.NoError(t, err)
	}
	require.True(t, s.Up(), "80 ms are too long for a caller, and not for this")
}

func TestTheServerIsFoundToTakeWrites(t *testing.T) {
	t.Parallel()
	server, other := redistest.Start(t), redistest.Start(t)
	s := connected(t, server.Addr())
	require.NoError(t, s.Writable(t.Context()))
	server.MustDo(t, "REPLICAOF", "127.0.0.1", strconv.Itoa(other.Port()))
	require.Error(t, s.Writable(t.Context()))
}

func TestKeyOfLease(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		leaseKey("a:b"): "a:b", leaseKey(""): "", "a:b": "-", "{a}!c:n:1": "-", "{a": "-", "a}!l": "-", "{}!l": "", "}!l": "-", "": "-",
	} {
		got, ok := KeyOfLease(name)
		if !ok {
			got = "-"
		}
		require.Equal(t, want, got, "%q", name)
	}
}

package redisstore

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
	"github.com/gatewayz/aside/internal/wire"
)

// wireFormat is the format of the values that this build writes.
var wireFormat = Format{
	Magic: wire.Magic, Version: wire.Version, Flags: wire.KnownFlags, LoadStart: wire.LoadStartOffset, Nonce: wire.NonceOffset,
	Chunked: wire.ChunkedFlag, Extended: wire.ExtendedFlag, TagsLen: wire.TagsLenOffset, Tags: wire.HeaderLen,
}

// Short chunks: what the scripts do does not depend on their length.
const shortChunk = 1000

var roomy = wire.Limits{MaxValue: 64 << 20, CompressFrom: -1}

// restamping is a server, a store and one key.
type restamping struct {
	t  *testing.T
	s  *Store
	do func(args ...string) any
}

func onEveryServer(t *testing.T, test func(r restamping)) {
	t.Helper()
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		test(onRedis(t, redistest.Start(t)))
	})
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		addr := miniredis.RunT(t).Addr()
		conn := redistest.Raw(t, addr)
		test(restamping{t, up(t, Options{Client: clientOf(addr), Format: wireFormat}), func(args ...string) any {
			v, err := conn.Do(args...)
			require.NoError(t, err)
			return v
		}})
	})
}

func onRedis(t *testing.T, server *redistest.Server) restamping {
	t.Helper()
	return restamping{
		t, up(t, Options{Client: clientOf(server.Addr()), Format: wireFormat}),
		func(args ...string) any { return server.MustDo(t, args...) },
	}
}

// until is the server's time, and so much later.
func (r restamping) until(life time.Duration) int64 {
	now, _, ok := r.s.Now("")
	require.True(r.t, ok)
	return now + life.Microseconds()
}

// seize takes the lease and returns its nonce.
func (r restamping) seize() wire.Nonce {
	r.t.Helper()
	n := wire.NewNonce()
	require.NoError(r.t, grants(r.s.Seize(r.t.Context(), nil, Request{Key: key, Nonce: n.String()}))[0].Err)
	return n
}

func (r restamping) header(n wire.Nonce, life time.Duration) wire.Header {
	until := r.until(life)
	return wire.Header{
		LoadStart: until - life.Microseconds(), FreshUntil: until, DeadUntil: until, Nonce: n,
		Tags: []wire.Tag{{Name: "t", Generation: 5}}, Extended: true, ETag: "an ETag",
	}
}

// fill stores a payload under a lease, and returns the value.
func (r restamping) fill(n wire.Nonce, h wire.Header, payload []byte, chunked bool) []byte {
	r.t.Helper()
	value, err := wire.Encode(key, h, payload, roomy)
	require.NoError(r.t, err)
	f := Filling{Key: key, Nonce: n.String(), Value: value, Until: h.DeadUntil}
	if chunked {
		f.Value, f.Chunks = wire.Split(value, shortChunk)
	}
	out, errs := r.s.Fill(r.t.Context(), f)
	require.NoError(r.t, errs[0])
	require.Equal(r.t, Stored, out[0])
	return f.Value
}

// stored fills key with a new value.
func (r restamping) stored(payload []byte, chunked bool) []byte {
	r.t.Helper()
	n := r.seize()
	return r.fill(n, r.header(n, time.Minute), payload, chunked)
}

// stamp is what restamps a value with a header.
func (r restamping) stamp(value []byte, n wire.Nonce, h wire.Header) Restamping {
	r.t.Helper()
	seen, _, need, err := wire.Peek(key, value)
	require.NoError(r.t, err)
	head, err := wire.Restamp(key, value[:need], h)
	require.NoError(r.t, err)
	stamp := Restamping{Key: key, Nonce: n.String(), Previous: seen.Nonce, Head: head, Replaces: need, Payload: seen.Payload.String(), Until: h.DeadUntil}
	if wire.IsChunked(value) {
		m, err := wire.ReadManifest(key, value, roomy)
		require.NoError(r.t, err)
		stamp.Chunks = m.Chunks
	}
	return stamp
}

func (r restamping) run(stamp Restamping) Outcome {
	r.t.Helper()
	out, errs := r.s.Restamp(r.t.Context(), stamp)
	require.NoError(r.t, errs[0])
	return out[0]
}

// restamped restamps a value, and returns the new one as far as it differs.
func (r restamping) restamped(value []byte, life time.Duration) []byte {
	r.t.Helper()
	n := r.seize()
	stamp := r.stamp(value, n, r.header(n, life))
	require.Equal(r.t, Stored, r.run(stamp))
	return append(slices.Clone(stamp.Head), value[stamp.Replaces:]...)
}

// read is what a reader makes of key. It fails where the value is there, and is not whole.
func (r restamping) read() (h wire.Header, payload []byte) {
	r.t.Helper()
	value := []byte(r.do("GET", key).(string))
	if !wire.IsChunked(value) {
		h, payload, err := wire.Decode(key, value, roomy)
		require.NoError(r.t, err)
		return h, payload
	}
	m, err := wire.ReadManifest(key, value, roomy)
	require.NoError(r.t, err)
	chunks, ok, err := r.s.Chunks(r.t.Context(), key, m.Header.Payload.String(), m.Lengths())
	require.NoError(r.t, err)
	require.True(r.t, ok, "all chunks are there")
	h, payload, err = m.Join(key, value, chunks, roomy)
	require.NoError(r.t, err)
	return h, payload
}

// chunks are those of key in Redis, with how long each has to live, in ms.
func (r restamping) chunks() map[string]int64 {
	r.t.Helper()
	left := make(map[string]int64)
	for _, name := range r.do("KEYS", "*").([]any) {
		if strings.HasPrefix(name.(string), "{"+key+"}!c:") {
			left[name.(string)] = r.do("PTTL", name.(string)).(int64)
		}
	}
	return left
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func TestARestampGivesAValueANewBeginning(t *testing.T) {
	t.Parallel()
	onEveryServer(t, func(r restamping) {
		for _, chunked := range []bool{false, true} {
			payload := random(3500)
			value := r.stored(payload, chunked)
			for i, change := range []func(h *wire.Header){
				func(*wire.Header) {},
				func(h *wire.Header) { h.ETag = "a longer ETag than before" },
				func(h *wire.Header) { h.Tags, h.ETag, h.StaleUntil = nil, "short", 12345 },
			} {
				n := r.seize()
				h := r.header(n, time.Hour+time.Duration(i)*time.Hour)
				change(&h)
				stamp := r.stamp(value, n, h)
				require.Equal(r.t, i == 0, len(stamp.Head) == stamp.Replaces)
				require.Equal(r.t, Stored, r.run(stamp))
				value = append(stamp.Head, value[stamp.Replaces:]...)
				got, gotPayload := r.read()
				require.True(r.t, bytes.Equal(payload, gotPayload))
				require.Equal(r.t, n, got.Nonce)
				require.Equal(r.t, h.Tags, got.Tags)
				require.Equal(r.t, h.ETag, got.ETag)
				require.Equal(r.t, h.StaleUntil, got.StaleUntil)
				require.Equal(r.t, h.FreshUntil, got.FreshUntil)
				require.InDelta(r.t, (time.Duration(i+1) * time.Hour).Milliseconds(), r.do("PTTL", key), 60_000)
				require.Equal(r.t, int64(0), r.do("EXISTS", lease))
				require.Equal(r.t, Refused, r.run(stamp), "a lease restamps once")
			}
		}
	})
}

func TestRestampsOfOneBatchHaveTheirOwnOutcomes(t *testing.T) {
	t.Parallel()
	r := onRedis(t, redistest.Start(t))
	value := r.stored([]byte("payload"), false)
	n := r.seize()
	good := r.stamp(value, n, r.header(n, time.Hour))
	gone := good
	gone.Key = "cat:gone"
	require.NoError(t, grants(r.s.Seize(t.Context(), nil, Request{Key: gone.Key, Nonce: gone.Nonce}))[0].Err)
	refused := good
	refused.Key = "cat:refused"
	r.do("SCRIPT", "FLUSH")
	out, errs := r.s.Restamp(t.Context(), refused, good, gone)
	require.Equal(t, []Outcome{Refused, Stored, Gone}, out)
	require.Equal(t, make([]error, 3), errs)
	out, errs = r.s.Restamp(t.Context())
	require.Empty(t, out)
	require.Empty(t, errs)
	r.s.Close()
	_, errs = r.s.Restamp(t.Context(), good)
	require.Error(t, errs[0])
}

// What is not modified is not sent, whatever its size, and its chunks are not read.
func TestARestampSendsTheBeginningAlone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	r := restamping{
		t, up(t, Options{Client: clientOf(proxy.Addr()), Format: wireFormat}),
		func(args ...string) any { return server.MustDo(t, args...) },
	}
	received := func() int64 {
		info := r.do("INFO", "stats").(string)
		_, rest, _ := strings.Cut(info, "total_net_input_bytes:")
		number, _, _ := strings.Cut(rest, "\r")
		n, err := strconv.ParseInt(number, 10, 64)
		require.NoError(t, err)
		return n
	}
	for name, c := range map[string]struct {
		size    int
		chunked bool
	}{"20 MB in chunks": {20 << 20, true}, "256 KiB in one piece": {256 << 10, false}} {
		n := r.seize()
		h := r.header(n, time.Minute)
		h.Tags = append(h.Tags, wire.Tag{Name: "%all", Generation: 1}, wire.Tag{Name: "%c:cat", Generation: 1})
		payload := random(c.size)
		value, err := wire.Encode(key, h, payload, roomy)
		require.NoError(t, err)
		f := Filling{Key: key, Nonce: n.String(), Value: value, Until: h.DeadUntil}
		if c.chunked {
			f.Value, f.Chunks = wire.Split(value, ChunkSize)
		}
		out, errs := r.s.Fill(t.Context(), f)
		require.NoError(t, errs[0])
		require.Equal(t, Stored, out[0])

		value, least, took := f.Value, int64(1<<40), time.Hour
		for range 5 { // the connection is probed now and then
			n = r.seize()
			h.Nonce, h.DeadUntil = n, r.until(2*time.Minute)
			stamp := r.stamp(value, n, h)
			proxy.ResetCounts()
			before, began := received(), time.Now()
			require.Equal(t, Stored, r.run(stamp))
			took = min(took, time.Since(began))
			least = min(least, received()-before)
			for _, args := range proxy.Log() {
				require.NotEqual(t, "GETRANGE "+key, args[0]+" "+args[min(1, len(args)-1)], "nothing of the value is read")
				require.NotContains(t, args[min(1, len(args)-1)], "!c:", "no chunk is touched but by the script")
			}
			value = append(stamp.Head, value[stamp.Replaces:]...)
		}
		t.Logf("%s: %d bytes to Redis, %v", name, least, took)
		require.Less(t, least, int64(1<<10), name)
		_, got := r.read()
		require.True(t, bytes.Equal(payload, got), name)
		r.s.Remove(t.Context(), key)
	}
}

// Hazard 36: where the value is not the one that was looked at, there is nothing to prolong.
func TestOnlyTheValueThatWasLookedAtIsRestamped(t *testing.T) {
	t.Parallel()
	onEveryServer(t, func(r restamping) {
		mine := r.stored([]byte("mine"), false)
		other := r.stored([]byte("theirs"), false)
		newer := bytes.Clone(mine)
		newer[2]++
		flagged := bytes.Clone(mine)
		flagged[3] |= 0x80
		for name, put := range map[string][]string{
			"evicted":            {"DEL", key},
			"replaced":           {"SET", key, string(other)},
			"of a newer version": {"SET", key, string(newer)},
			"of another flag":    {"SET", key, string(flagged)},
			"foreign":            {"SET", key, strings.Repeat("x", 200)},
			"cut in its nonce":   {"SET", key, string(mine[:wire.NonceOffset+11])},
			"empty":              {"SET", key, ""},
			"no string":          {"RPUSH", key, "x"},
		} {
			r.do("DEL", key)
			r.do(put...)
			there := r.do("EXISTS", key)
			n := r.seize()
			stamp := r.stamp(mine, n, r.header(n, time.Hour))
			require.Equal(r.t, Gone, r.run(stamp), name)
			require.Equal(r.t, Gone, r.run(stamp), "%s: as often as it is asked", name)
			require.Equal(r.t, there, r.do("EXISTS", key), name)
			if there == int64(1) && put[0] == "SET" {
				require.Equal(r.t, put[2], r.do("GET", key), name)
			}
			require.Equal(r.t, n.String(), r.do("GET", lease), "%s: the lease stays for a fill", name)
			out, errs := r.s.Fill(r.t.Context(), Filling{Key: key, Nonce: n.String(), Value: other, Until: r.until(time.Minute)})
			require.NoError(r.t, errs[0], name)
			want := Stored
			if strings.HasPrefix(name, "of a") {
				want = Refused
			}
			require.Equal(r.t, want, out[0], name)
		}
	})
}

// Hazard 36: a beginning without all of its chunks is of no use.
func TestAValueWithoutOneOfItsChunksIsNotRestamped(t *testing.T) {
	t.Parallel()
	onEveryServer(t, func(r restamping) {
		for missing := range 4 {
			payload := random(3500)
			value := r.stored(payload, true)
			if missing%2 == 1 {
				value = r.restamped(value, time.Minute)
			}
			head, _, _, err := wire.Peek(key, value)
			require.NoError(r.t, err)
			r.do("DEL", chunkKey(key, head.Payload.String(), missing))
			n := r.seize()
			stamp := r.stamp(value, n, r.header(n, time.Hour))
			require.Equal(r.t, Gone, r.run(stamp))
			require.Equal(r.t, int64(0), r.do("EXISTS", key), "nobody can read it")
			for name, left := range r.chunks() {
				require.LessOrEqual(r.t, left, chunkGrace.Milliseconds(), name)
			}
			require.Equal(r.t, Gone, r.run(stamp))
			r.fill(n, r.header(n, time.Minute), payload, true)
			_, got := r.read()
			require.True(r.t, bytes.Equal(payload, got))
			r.do("FLUSHALL")
		}
	})
}

func TestWhoHasLostTheLeaseRestampsNothing(t *testing.T) {
	t.Parallel()
	onEveryServer(t, func(r restamping) {
		for _, chunked := range []bool{false, true} {
			for name, lose := range map[string]func(){
				"to a Set":           func() { r.seize() },
				"to an invalidation": func() { _, errs := r.s.Remove(r.t.Context(), key); require.Nil(r.t, errs) },
				"to a sweep of all":  func() { _, err := r.s.Erase(r.t.Context(), key); require.NoError(r.t, err) },
				"by its end":         func() { r.do("DEL", lease) },
				"by its release":     func() { r.do("SET", lease, "-marked") },
			} {
				value := r.stored(random(3500), chunked)
				n := r.seize()
				stamp := r.stamp(value, n, r.header(n, time.Hour))
				lose()
				before, there := r.chunks(), r.do("GET", key)
				require.Equal(r.t, Refused, r.run(stamp), name)
				require.Equal(r.t, there, r.do("GET", key), name)
				for c, left := range r.chunks() {
					require.LessOrEqual(r.t, left, before[c], name)
				}
			}
		}
	})
}

func TestARestampThatComesAfterItsOwnEndRemovesTheValue(t *testing.T) {
	t.Parallel()
	onEveryServer(t, func(r restamping) {
		for _, chunked := range []bool{false, true} {
			value := r.restamped(r.stored(random(3500), chunked), time.Minute)
			n := r.seize()
			require.Equal(r.t, Expired, r.run(r.stamp(value, n, r.header(n, -time.Second))))
			require.Equal(r.t, int64(0), r.do("EXISTS", key, lease))
			for name, left := range r.chunks() {
				require.LessOrEqual(r.t, left, chunkGrace.Milliseconds(), name)
			}
		}
	})
}

// Hazard 37: the chunks outlive their value after each of several restamps.
func TestChunksOutliveTheirValueAfterEachRestamp(t *testing.T) {
	t.Parallel()
	onEveryServer(t, func(r restamping) {
		payload := random(3500)
		value := r.stored(payload, true)
		for _, life := range []time.Duration{5 * time.Minute, time.Hour, 30 * time.Minute, 3 * time.Hour} {
			value = r.restamped(value, life)
			left := r.do("PTTL", key).(int64)
			require.InDelta(r.t, life.Milliseconds(), left, 60_000)
			chunks := r.chunks()
			require.Len(r.t, chunks, 4, "no others")
			for name, itsLeft := range chunks {
				require.Greater(r.t, itsLeft, left+chunkGrace.Milliseconds()-1000, name)
				require.Less(r.t, itsLeft, left+chunkGrace.Milliseconds()+60_000, name)
			}
			_, got := r.read()
			require.True(r.t, bytes.Equal(payload, got))
		}
	})
}

// Hazard 37: the chunks of a restamped value do not have its nonce in their names.
func TestTheChunksOfARestampedValueGoWithIt(t *testing.T) {
	t.Parallel()
	onEveryServer(t, func(r restamping) {
		ctx := r.t.Context()
		for name, remove := range map[string]func(value []byte){
			"invalidated": func([]byte) {
				removed, errs := r.s.Remove(ctx, key)
				require.Nil(r.t, errs)
				require.EqualValues(r.t, 1, removed)
			},
			"erased": func([]byte) {
				removed, err := r.s.Erase(ctx, key)
				require.NoError(r.t, err)
				require.Equal(r.t, []bool{true}, removed)
			},
			"swept": func([]byte) {
				removed, err := r.s.Sweep(ctx, Outdated{Key: key, Tags: []Current{{Tag: "t", Value: 6}}})
				require.NoError(r.t, err)
				require.Equal(r.t, map[string]int64{"t": 1}, removed)
			},
			"discarded": func([]byte) { require.NoError(r.t, r.s.Discard(ctx, key, r.until(time.Hour))) },
			"replaced": func([]byte) {
				n := r.seize()
				r.fill(n, r.header(n, time.Minute), []byte("a small one"), false)
			},
			"replaced by a large one": func([]byte) {
				n := r.seize()
				r.fill(n, r.header(n, time.Minute), random(3500), true)
			},
			"filled too late": func([]byte) {
				n := r.seize()
				out, errs := r.s.Fill(ctx, Filling{Key: key, Nonce: n.String(), Value: []byte("x"), Until: 1})
				require.NoError(r.t, errs[0])
				require.Equal(r.t, Expired, out[0])
			},
			"restamped too late": func(value []byte) {
				n := r.seize()
				require.Equal(r.t, Expired, r.run(r.stamp(value, n, r.header(n, -time.Second))))
			},
		} {
			for _, times := range []int{0, 1, 3} {
				value := r.stored(random(3500), true)
				for range times {
					value = r.restamped(value, time.Hour)
				}
				old := r.chunks()
				require.Len(r.t, old, 4)
				remove(value)
				for c, left := range r.chunks() {
					if _, ok := old[c]; ok {
						require.LessOrEqual(r.t, left, chunkGrace.Milliseconds(), "%s after %d restamps: %s", name, times, c)
					}
				}
				r.do("FLUSHALL")
			}
		}
	})
}

// Hazard 37, in steps:
//
//  1. A fills K, and the reply of the fill is lost.
//  2. B restamps the value. Its own nonce is B's now, its chunks still have A's.
//  3. A takes back its chunks, as it has heard of no fill.
func TestTheChunksOfAFillStayWhereItsValueWasRestampedSince(t *testing.T) {
	t.Parallel()
	onEveryServer(t, func(r restamping) {
		payload := random(3500)
		value := r.stored(payload, true)
		head, _, _, err := wire.Peek(key, value)
		require.NoError(r.t, err)
		r.restamped(value, time.Minute)
		r.s.forgetChunks(r.t.Context(), map[*Filling]int{{Key: key, Nonce: head.Nonce.String()}: 4})
		_, got := r.read()
		require.True(r.t, bytes.Equal(payload, got))
	})
}

func TestAServerWithoutMemoryTakesARestampOfTheSameLength(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--maxmemory-policy", "noeviction")
	r := onRedis(t, server)
	for _, chunked := range []bool{false, true} {
		payload := random(3500)
		value := r.stored(payload, chunked)
		n := r.seize()
		h := r.header(n, time.Hour)
		longer := h
		longer.ETag += " that is longer than before"
		same, other := r.stamp(value, n, h), r.stamp(value, n, longer)
		server.MustDo(t, "CONFIG", "SET", "maxmemory", "1")
		if !chunked {
			_, errs := r.s.Restamp(t.Context(), other)
			require.ErrorContains(t, errs[0], "OOM")
			require.Equal(t, string(value), server.MustDo(t, "GET", key), "as it was")
			require.Equal(t, n.String(), server.MustDo(t, "GET", lease))
		}
		require.Equal(t, Stored, r.run(same))
		server.MustDo(t, "CONFIG", "SET", "maxmemory", "0")
		_, got := r.read()
		require.True(t, bytes.Equal(payload, got))
	}
}

func TestARestampTellsThoseWhoHaveReadTheValue(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	r := onRedis(t, server)
	told := make(chan string, 10)
	other := up(t, Options{Client: clientOf(server.Addr()), Format: wireFormat, Pushed: func(key string) { told <- key }})
	value := r.stored(random(3500), true)
	for range 3 {
		tellsOf(t, other, key)
		value = r.restamped(value, time.Hour)
		require.Equal(t, key, <-told)
	}
	tellsOf(t, other, key)
	n := r.seize()
	head, _, _, err := wire.Peek(key, value)
	require.NoError(t, err)
	server.MustDo(t, "DEL", chunkKey(key, head.Payload.String(), 2))
	require.Equal(t, Gone, r.run(r.stamp(value, n, r.header(n, time.Hour))))
	require.Equal(t, key, <-told, "of a value that is removed too")
}

// Hazards 36 and 37: whatever comes between, and wherever, a value in Redis has all of its chunks, and chunks without a value end soon.
func TestARestampMeetsEveryOtherChangeInEachPlace(t *testing.T) {
	t.Parallel()
	r := onRedis(t, redistest.Start(t))
	ctx := t.Context()
	changes := map[string]struct {
		change func(value []byte)
		want   [3]Outcome // before the lease is taken, under the lease, after the restamp
	}{
		"nothing":         {func([]byte) {}, [3]Outcome{Stored, Stored, Stored}},
		"an invalidation": {func([]byte) { r.s.Remove(ctx, key) }, [3]Outcome{Gone, Refused, Stored}},
		"an eviction":     {func([]byte) { r.do("UNLINK", key) }, [3]Outcome{Gone, Gone, Stored}},
		"an eviction of a chunk": {func(value []byte) {
			h, _, _, err := wire.Peek(key, value)
			require.NoError(t, err)
			r.do("UNLINK", chunkKey(key, h.Payload.String(), 3))
		}, [3]Outcome{Gone, Gone, Stored}},
		"a Set": {func([]byte) {
			n := r.seize()
			r.fill(n, r.header(n, time.Minute), random(2500), true)
		}, [3]Outcome{Gone, Refused, Stored}},
		"a discarded Set": {func([]byte) { require.NoError(t, r.s.Discard(ctx, key, r.until(-30*time.Second))) }, [3]Outcome{Stored, Stored, Stored}},
		"a sweep": {func([]byte) {
			_, err := r.s.Sweep(ctx, Outdated{Key: key, Tags: []Current{{Tag: "t", Value: 6}}})
			require.NoError(t, err)
		}, [3]Outcome{Gone, Gone, Stored}},
		"another's restamp": {func(value []byte) {
			n := r.seize()
			r.run(r.stamp(value, n, r.header(n, time.Hour)))
		}, [3]Outcome{Gone, Refused, Stored}},
		"a newer build": {func(value []byte) {
			newer := bytes.Clone(value)
			newer[2]++
			r.do("SET", key, string(newer), "PX", "60000")
		}, [3]Outcome{Gone, Gone, Stored}},
	}
	met := 0
	for name, c := range changes {
		for place := range 3 {
			for _, before := range []int{0, 2} { // restamps
				what := fmt.Sprintf("%s in place %d after %d restamps", name, place, before)
				value := r.stored(random(3500), true)
				for range before {
					value = r.restamped(value, time.Hour)
				}
				if place == 0 {
					c.change(value)
				}
				n := r.seize()
				stamp := r.stamp(value, n, r.header(n, time.Hour))
				if place == 1 {
					c.change(value)
				}
				require.Equal(t, c.want[place], r.run(stamp), what)
				if place == 2 {
					c.change(append(slices.Clone(stamp.Head), value[stamp.Replaces:]...))
				}
				wanted := map[string]bool{}
				there, ok := r.do("GET", key).(string)
				if h, _, _, err := wire.Peek(key, []byte(there)); ok && err == nil {
					m, err := wire.ReadManifest(key, []byte(there), roomy)
					require.NoError(t, err, what)
					if name != "an eviction of a chunk" || place != 2 {
						r.read()
					}
					for i := range m.Chunks {
						wanted[chunkKey(key, h.Payload.String(), i)] = true
					}
				}
				if name != "a newer build" && (name != "an eviction" || place != 2) { // whoever has written over K, and Redis, leave chunks as they are
					for c, left := range r.chunks() {
						require.True(t, wanted[c] || left <= chunkGrace.Milliseconds(), "%s: %s has %d ms", what, c, left)
					}
				}
				r.do("FLUSHALL")
				met++
			}
		}
	}
	require.Equal(t, 2*3*9, met)
}

// stampedIn stores a chunked value under key, takes the lease anew, and returns the value and what restamps it.
func stampedIn(t *testing.T, s *Store, key string, payload []byte) (manifest []byte, stamp Restamping) {
	t.Helper()
	now, _, ok := s.Now(key)
	require.True(t, ok)
	until := now + time.Minute.Microseconds()
	n := wire.NewNonce()
	require.NoError(t, grants(s.Seize(t.Context(), nil, Request{Key: key, Nonce: n.String()}))[0].Err)
	value, err := wire.Encode(key, wire.Header{Nonce: n, DeadUntil: until, Extended: true}, payload, roomy)
	require.NoError(t, err)
	manifest, chunks := wire.Split(value, shortChunk)
	out, errs := s.Fill(t.Context(), Filling{Key: key, Nonce: n.String(), Value: manifest, Chunks: chunks, Until: until})
	require.NoError(t, errs[0])
	require.Equal(t, Stored, out[0])
	lease := wire.NewNonce()
	require.NoError(t, grants(s.Seize(t.Context(), nil, Request{Key: key, Nonce: lease.String()}))[0].Err)
	head, err := wire.Restamp(key, manifest, wire.Header{Nonce: lease, DeadUntil: until, ETag: "e"})
	require.NoError(t, err)
	return manifest, Restamping{
		Key: key, Nonce: lease.String(), Previous: n, Head: head, Replaces: len(manifest), Payload: n.String(), Chunks: len(chunks), Until: until,
	}
}

func TestARestampInACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	o := inCluster(cluster.Addrs()...)
	o.Format = wireFormat
	s := up(t, o)
	for i := range 30 {
		name, payload := "cat:"+strconv.Itoa(i), random(3500)
		_, stamp := stampedIn(t, s, name, payload)
		out, errs := s.Restamp(t.Context(), stamp)
		require.NoError(t, errs[0])
		require.Equal(t, Stored, out[0])
		r := s.Get(t.Context(), Get{Key: name})[0]
		require.NoError(t, r.Err)
		m, err := wire.ReadManifest(name, r.Value, roomy)
		require.NoError(t, err)
		require.Equal(t, stamp.Nonce, m.Header.Nonce.String())
		got, ok, err := s.Chunks(t.Context(), name, m.Header.Payload.String(), m.Lengths())
		require.NoError(t, err)
		require.True(t, ok)
		_, whole, err := m.Join(name, r.Value, got, roomy)
		require.NoError(t, err)
		require.True(t, bytes.Equal(payload, whole))
	}
}

// While a slot moves, what a script misses at one node may be at the other one. Such a value is not gone.
func TestWhileItsSlotMovesAValueIsNotRestamped(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	o := inCluster(cluster.Addrs()...)
	o.Format, o.OpTimeout = wireFormat, bound
	s := up(t, o)
	for name, move := range map[string]func(stamp Restamping) []string{
		"its value": func(stamp Restamping) []string { return []string{stamp.Key} },
		"its lease": func(stamp Restamping) []string { return []string{leaseKey(stamp.Key)} },
		"a chunk":   func(stamp Restamping) []string { return []string{chunkKey(stamp.Key, stamp.Payload, 2)} },
		"its chunks": func(stamp Restamping) []string {
			return []string{chunkKey(stamp.Key, stamp.Payload, 0), chunkKey(stamp.Key, stamp.Payload, 1), chunkKey(stamp.Key, stamp.Payload, 2), chunkKey(stamp.Key, stamp.Payload, 3)}
		},
	} {
		key := nameAt(s, 0, "cat:"+name)
		manifest, stamp := stampedIn(t, s, key, random(3500))
		m := cluster.BeginMigration(redistest.Slot(key), at(t, cluster, s, 1))
		m.Move(move(stamp)...)
		_, errs := s.Restamp(t.Context(), stamp)
		require.True(t, IsMoving(errs[0]), "%s: %v", name, errs[0])
		m.Finish()
		require.Equal(t, string(manifest), m.To.MustDo(t, "GET", key), name)
		require.Equal(t, stamp.Nonce, m.To.MustDo(t, "GET", leaseKey(key)), name)
		out, errs := s.Restamp(t.Context(), stamp)
		require.NoError(t, errs[0], name)
		require.Equal(t, Stored, out[0], name)
	}

	// Where value and lease have moved and the chunks have not, no node can tell that from chunks that are gone.
	key := nameAt(s, 0, "cat:all but its chunks")
	_, stamp := stampedIn(t, s, key, random(3500))
	m := cluster.BeginMigration(redistest.Slot(key), at(t, cluster, s, 1))
	m.Move(key, leaseKey(key))
	out, errs := s.Restamp(t.Context(), stamp)
	require.NoError(t, errs[0])
	require.Equal(t, Gone, out[0], "a miss, and no wrong value")
	m.Finish()
	require.Equal(t, stamp.Nonce, m.To.MustDo(t, "GET", leaseKey(key)), "the caller may fill it")
	require.EqualValues(t, 0, m.To.MustDo(t, "EXISTS", key))
}

// Hazard 46: a build that does not know the flag of extended values leaves them alone, and replaces none.
func TestABuildThatKnowsNoExtendedValuesLeavesThemAlone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	r := onRedis(t, server)
	older := wireFormat
	older.Flags, older.Extended = wire.KnownFlags&^wire.ExtendedFlag, 0
	s := up(t, Options{Client: clientOf(server.Addr()), Format: older})
	for _, chunked := range []bool{false, true} {
		value := r.restamped(r.stored(random(3500), chunked), time.Hour)
		removed, err := s.Sweep(t.Context(), Outdated{Key: key, Tags: []Current{{Tag: "t", Value: 6}}})
		require.NoError(t, err)
		require.Empty(t, removed)
		require.True(t, acquireOne(t, s, "n", Rejected{}).Present)
		n := r.seize()
		stamp := r.stamp(value, n, r.header(n, time.Hour))
		out, errs := s.Restamp(t.Context(), stamp)
		require.NoError(t, errs[0])
		require.Equal(t, Gone, out[0])
		require.Equal(t, string(value), server.MustDo(t, "GET", key))
		require.Equal(t, Refused, fillOne(t, s, n.String(), "ours", time.Minute))
		require.Equal(t, int64(0), server.MustDo(t, "EXISTS", key), "the fill of a later load removes it, since it is out of date")
		server.MustDo(t, "FLUSHALL")
	}
}

// A later build's records in a value change nothing for this one.
func TestAValueWithRecordsOfALaterBuildIsRestampedAndSwept(t *testing.T) {
	t.Parallel()
	r := onRedis(t, redistest.Start(t))
	value := r.stored([]byte("payload"), false)
	section := int(binary.LittleEndian.Uint32(value[wire.TagsLenOffset:]))
	later := append(slices.Clone(value[:wire.HeaderLen+section]), 77, 3, 0, 1, 2, 3)
	binary.LittleEndian.PutUint32(later[wire.TagsLenOffset:], uint32(section+6))
	sums := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(later[wire.HeaderLen-4:], crc32.Update(crc32.Checksum(later[:wire.HeaderLen-4], sums), sums, later[wire.HeaderLen:]))
	later = append(later, "payload"...)
	r.do("SET", key, string(later))
	_, payload := r.read()
	require.Equal(t, "payload", string(payload))
	again := r.restamped(later, time.Hour)
	_, payload = r.read()
	require.Equal(t, "payload", string(payload))
	require.Len(t, again, len(value), "without the records, whose meaning for the new value is not known")
	r.do("SET", key, string(later))
	removed, err := r.s.Sweep(t.Context(), Outdated{Key: key, Tags: []Current{{Tag: "t", Value: 6}}})
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"t": 1}, removed)
}

func TestWithoutTrackingARestampIsAnnounced(t *testing.T) {
	t.Parallel()
	addr := miniredis.RunT(t).Addr() // it tracks nothing
	conn := redistest.Raw(t, addr)
	told := make(chan string, 10)
	other := up(t, Options{Client: clientOf(addr), Format: wireFormat, Pushed: func(key string) { told <- key }})
	r := restamping{t, up(t, Options{Client: clientOf(addr), Format: wireFormat}), func(args ...string) any {
		v, err := conn.Do(args...)
		require.NoError(t, err)
		return v
	}}
	require.Eventually(t, func() bool { return other.announcements.validity() != nil }, bound, time.Millisecond)
	value := r.stored([]byte("payload"), false)
	require.Equal(t, key, <-told)
	r.restamped(value, time.Hour)
	select {
	case announced := <-told:
		require.Equal(t, key, announced)
	case <-time.After(bound):
		require.Fail(t, "nothing is announced")
	}
}

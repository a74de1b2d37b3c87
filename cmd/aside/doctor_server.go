package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// server examines one server. The replicas of a cluster are left out: no process uses them.
func (x *examination) server(ctx context.Context, node rueidis.Client, cluster bool) {
	text, err := doAt(ctx, node, "INFO").ToString()
	info := fields(text)
	if cluster && info["role"] == "slave" {
		return
	}
	x.latency(ctx, node)
	x.clock(ctx, node)
	if err != nil {
		for _, check := range []string{"version", "eviction", "durability", "tracking table"} {
			x.unchecked(check, err)
		}
	} else {
		x.version(ctx, node, info)
		x.eviction(info)
		x.durability(ctx, node, info)
		x.trackingTable(ctx, node, info)
	}
	x.buffers(ctx, node)
	x.idleTimeout(ctx, node)
	x.keys(ctx, node)
}

// fields are those of an answer to INFO.
func fields(text string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(strings.TrimPrefix(text, "txt:")) { // RESP3 says of what kind a text is
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			found[name] = value
		}
	}
	return found
}

func (x *examination) version(ctx context.Context, node rueidis.Client, info map[string]string) {
	const check = "version"
	major, _, _ := strings.Cut(info["redis_version"], ".")
	if n, err := strconv.Atoi(major); err == nil && n < 6 {
		x.add(check, levelFail, "use Redis 6 or later, or Valkey", "%s, which has neither RESP3 nor client tracking", info["redis_version"])
		return
	}
	text := versionOf(info)
	if info["cluster_enabled"] != "1" {
		x.add(check, levelOK, "", "%s", text)
		return
	}
	state, err := doAt(ctx, node, "CLUSTER", "INFO").ToString()
	switch {
	case err != nil:
		x.unchecked(check, err)
	case fields(state)["cluster_state"] != "ok":
		x.add(check, levelFail, "find the node that is down, or give the slots that nobody has to one: redis-cli --cluster check", "%s, cluster_state is %s", text, fields(state)["cluster_state"])
	default:
		x.add(check, levelOK, "", "%s, cluster_state is ok", text)
	}
}

// versionOf is the version of a server and its mode. Valkey calls itself the Redis that it is compatible with, and has fields of its own for what it is.
func versionOf(info map[string]string) string {
	if version := info["valkey_version"]; version != "" {
		return "Valkey " + version + ", " + info["server_mode"]
	}
	return info["redis_version"] + ", " + info["redis_mode"]
}

func (x *examination) eviction(info map[string]string) {
	const check = "eviction"
	limit, used := number64(info["maxmemory"]), number64(info["used_memory"])
	policy := info["maxmemory_policy"]
	if limit == 0 {
		x.add(check, levelOK, "", "%s in use, no limit (maxmemory 0)", mebibytes(used))
		return
	}
	text := fmt.Sprintf("%s of %s in use, %s", mebibytes(used), mebibytes(limit), policy)
	const better = "CONFIG SET maxmemory-policy allkeys-lru, or volatile-lru beside other data"
	switch {
	case policy == "noeviction" && used >= limit/10*9:
		x.add(check, levelFail, better, "%s: it is full, and refuses to store values", text)
	case policy == "noeviction":
		x.add(check, levelWarn, better, "%s: once it is full, it refuses to store values", text)
	case strings.HasSuffix(policy, "-random"):
		x.add(check, levelWarn, better, "%s: it evicts generations in use too, and the values that carry them are loaded again", text)
	default:
		x.add(check, levelOK, "", "%s", text)
	}
}

func number64(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// durability looks at what a restart or a failover loses.
func (x *examination) durability(ctx context.Context, node rueidis.Client, info map[string]string) {
	const check = "durability"
	replicas := info["connected_slaves"]
	kept := "no snapshots"
	if when, err := config(ctx, node, "save"); err != nil {
		kept = "snapshots not known"
	} else if when != "" {
		kept = "snapshots"
	}
	if info["aof_enabled"] == "1" {
		kept = "append-only file"
	}
	text := replicas + " replicas, " + kept
	switch {
	case info["role"] != "master":
		x.add(check, levelFail, "give the address of the primary", "it is a replica, which takes no writes")
	case info["rdb_last_bgsave_status"] == "err":
		x.add(check, levelFail, "its log says why: with stop-writes-on-bgsave-error it refuses writes, invalidations too", "%s; the last snapshot failed", text)
	case info["aof_enabled"] == "1" && info["aof_last_write_status"] != "ok":
		x.add(check, levelFail, "its log says why: it refuses writes, invalidations too", "%s; it cannot write its append-only file", text)
	case behind(info) != "":
		x.add(check, levelWarn, "a failover to it can bring back values that were invalidated: Receipt.Replicated waits for replicas", "%s; %s", text, behind(info))
	default:
		x.add(check, levelOK, "", "%s", text)
	}
}

// mostLag is how many seconds ago a replica that keeps up has acknowledged at most: it does so every second.
const mostLag = 5

// behind says which replica does not keep up.
func behind(info map[string]string) string {
	for i := range number64(info["connected_slaves"]) {
		name := fmt.Sprintf("slave%d", i)
		state := map[string]string{}
		for pair := range strings.SplitSeq(info[name], ",") {
			key, value, _ := strings.Cut(pair, "=")
			state[key] = value
		}
		if state["state"] != "online" {
			return "replica " + strconv.FormatInt(i, 10) + " is not in step yet (" + state["state"] + ")"
		}
		if lag := number64(state["lag"]); lag > mostLag {
			return fmt.Sprintf("replica %d has not answered for %d s", i, lag)
		}
	}
	return ""
}

func (x *examination) trackingTable(ctx context.Context, node rueidis.Client, info map[string]string) {
	const check = "tracking table"
	limit, err := config(ctx, node, "tracking-table-max-keys")
	if err != nil {
		x.unchecked(check, err)
		return
	}
	held, most := number64(info["tracking_total_keys"]), number64(limit)
	level := levelOK
	if most > 0 && held >= most-most/10 {
		level = levelWarn
	}
	x.add(check, level, "CONFIG SET tracking-table-max-keys to more keys than the processes read: a key that is dropped is read again",
		"%d keys of %d (tracking-table-max-keys)", held, most)
}

var errNoSetting = errors.New("the server has no such setting")

// config is a setting of the server.
func config(ctx context.Context, node rueidis.Client, name string) (string, error) {
	values, err := doAt(ctx, node, "CONFIG", "GET", name).AsStrMap()
	if err != nil {
		return "", err
	}
	value, ok := values[name]
	if !ok {
		return "", errNoSetting
	}
	return value, nil
}

// leastBuffer is less than a reader of values in chunks ever has to wait for: four chunks of 256 KiB, with room for pushes.
const leastBuffer = 8 << 20

// buffers looks at the limit at which the server closes the connection of a slow reader. The classes are in one text: name, hard limit, soft limit, seconds.
func (x *examination) buffers(ctx context.Context, node rueidis.Client) {
	const check = "buffers"
	value, err := config(ctx, node, "client-output-buffer-limit")
	if err != nil {
		x.unchecked(check, err)
		return
	}
	words := strings.Fields(value)
	for i := 0; i+3 < len(words); i += 4 {
		if words[i] != "normal" {
			continue
		}
		for _, limit := range words[i+1 : i+3] {
			if n := number64(limit); n > 0 && n < leastBuffer {
				x.add(check, levelWarn, "CONFIG SET client-output-buffer-limit 'normal 0 0 0': each closed connection is a gap, after which memory is not fresh (trackingLost)",
					"connections with %s of replies outstanding are closed", mebibytes(n))
				return
			}
		}
	}
	x.add(check, levelOK, "", "client-output-buffer-limit leaves room for values and pushes")
}

// leastTimeout is in seconds. An idle connection of a process sends something every second or so.
const leastTimeout = 10

func (x *examination) idleTimeout(ctx context.Context, node rueidis.Client) {
	const check = "idle timeout"
	value, err := config(ctx, node, "timeout")
	if err != nil {
		x.unchecked(check, err)
		return
	}
	if n := number64(value); n > 0 && n < leastTimeout {
		x.add(check, levelWarn, "CONFIG SET timeout 0, or at least 10: each closed connection is a gap, after which memory is not fresh (trackingLost)",
			"connections that are idle for %d s are closed", n)
		return
	}
	x.add(check, levelOK, "", "timeout %s", value)
}

// mostOffset is more than clocks that are synchronized differ by.
const mostOffset = time.Second

// clock compares the clocks. Values are dated by the server's, so an offset does no harm to them; but logs and tags are hard to compare.
func (x *examination) clock(ctx context.Context, node rueidis.Client) {
	const check = "clock"
	began := time.Now()
	parts, err := doAt(ctx, node, "TIME").AsStrSlice()
	trip := time.Since(began)
	if err != nil || len(parts) != 2 {
		x.unchecked(check, err)
		return
	}
	server := time.Unix(number64(parts[0]), number64(parts[1])*1000)
	offset := server.Sub(began.Add(trip / 2))
	level := levelOK
	if max(offset, -offset)-trip/2 > mostOffset {
		level = levelWarn
	}
	x.add(check, level, "synchronize the clocks (NTP). Values are not affected: all processes use the server's clock; times in logs are", "the server's clock is off by %s", show(max(offset, -offset)))
}

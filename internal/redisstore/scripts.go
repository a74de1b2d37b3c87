package redisstore

import (
	"context"
	"crypto/sha1"
	"encoding/hex"

	"github.com/redis/rueidis"

	"github.com/gatewayz/aside/internal/stats"
)

// Each script works on one key K and its lease L = {K}!l, which a cluster puts into the same slot. A lease's value is the nonce of
// the one fill that it allows. Values are stored by fill alone, under a lease that is still held. An invalidation removes the lease
// too. So a value whose load began before an invalidation is refused, however late it arrives.

// A script is sent by its SHA-1, for EVALSHA. Where it has a command, it is that command and no script.
type script struct {
	text, sha1 string
	trip       stats.Trip
	repeatable bool // to run it twice has the same effect as once
	command    func(b rueidis.Builder, keys, args []string) rueidis.Completed
}

// scripts are all scripts of this package.
var scripts []*script

func newScript(trip stats.Trip, text string) *script {
	sum := sha1.Sum([]byte(text))
	s := &script{trip: trip, text: text, sha1: hex.EncodeToString(sum[:])}
	scripts = append(scripts, s)
	return s
}

func repeatable(s *script) *script {
	s.repeatable = true
	return s
}

// notifyMissing notifies the clients that have read K, where K is missing. The server pushes a change of a key to every client
// that has read the key. All processes that load a value, wait for one, or have one in memory that Redis could not take, have read
// K. To remove a missing K would change nothing and notify nobody. So K is written and removed again. Every script that does so
// has removed something before, or tried to: then the server lets it write even without memory.
const notifyMissing = `
redis.call('SET', KEYS[1], '', 'PX', 1)
redis.call('DEL', KEYS[1])
`

// notifyLease removes the lease, and notifies the clients that have read K as missing.
const notifyLease = `
redis.call('DEL', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 0 then` + notifyMissing + `
end
`

// A call is one run of a script. Its first key determines the node.
type call struct {
	script     *script
	keys, args []string
}

// onPair is a call on a key and its lease.
func (s *Store) onPair(script *script, key string, args ...string) call {
	room := new(struct { // one allocation for most calls
		keys [2]string
		args [4]string
	})
	room.keys = [2]string(s.pair(key))
	return call{script, room.keys[:], append(room.args[:0], args...)}
}

// build builds the command, inFull for a server that does not know the script.
func (k *call) build(b rueidis.Builder, inFull bool) rueidis.Completed {
	switch {
	case k.script.command != nil:
		return k.script.command(b, k.keys, k.args)
	case inFull:
		return b.Eval().Script(k.script.text).Numkeys(int64(len(k.keys))).Key(k.keys...).Arg(k.args...).Build()
	}
	return b.Evalsha().Sha1(k.script.sha1).Numkeys(int64(len(k.keys))).Key(k.keys...).Arg(k.args...).Build()
}

// run executes scripts in one round trip for each node, on each node in their order. Where a server does not know one of them, a
// second round trip runs the unknown scripts, and all repeatable ones behind the first unknown one, so that their order stays.
func (s *Store) run(ctx context.Context, calls []call) []rueidis.RedisResult {
	return s.runAs(ctx, batch{content: content{calls: calls}})
}

// runAs is run of a batch with calls.
func (s *Store) runAs(ctx context.Context, b batch) []rueidis.RedisResult {
	results := s.each(ctx, b)
	var unknown []int
	for i, r := range results {
		e, ok := rueidis.IsRedisErr(r.Error())
		if ok && e.IsNoScript() || len(unknown) > 0 && b.repeatable(i) {
			unknown = append(unknown, i)
		}
	}
	if len(unknown) == 0 {
		return results
	}
	b.content = b.only(unknown)
	b.inFull = true
	for j, r := range s.each(ctx, b) {
		results[unknown[j]] = r
	}
	return results
}

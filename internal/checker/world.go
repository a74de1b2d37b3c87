package main

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/gatewayz/aside"
)

// A group is eight keys of one policy that carry the same tags.
type group struct {
	policy  aside.Policy
	letter  string
	tags    []string // by WithTags
	late    []string // named by the loader
	padding int      // bytes
}

const (
	groupSize = 8

	// batchGroups is how many groups, from the first one on, are read in large batches too.
	batchGroups = 2

	keyCount = 48

	// chunkFrom has the values of the last group stored in chunks, as large ones are.
	chunkFrom = 1024

	inMemoryAlone = 2 // the group whose values a schedule with places keeps in memory alone: half of its keys are shunned
)

var (
	items  = aside.Policy{Name: "items", Category: "items", TTL: time.Hour, Codec: pauses}
	things = aside.Policy{Name: "things", Category: "things", TTL: time.Hour, CloneOnRead: true, Codec: pauses}
	large  = aside.Policy{Name: "large", Category: "things", TTL: time.Hour, Codec: pauses}

	groups = [keyCount / groupSize]group{
		{policy: items, letter: "a"},
		{policy: items, letter: "b", tags: []string{"red"}},
		{policy: items, letter: "c", tags: []string{"red", "blue"}},
		{policy: items, letter: "d", late: []string{"green"}},
		{policy: things, letter: "a"},
		{policy: large, letter: "b", tags: []string{"blue"}, padding: 1500},
	}
	tags       = []string{"red", "blue", "green"}
	categories = []string{"items", "things"}
	patterns   = []string{"items:a*", "items:b*", "items:d*", "things:b*"}
)

// A keySet has bit k for key k.
type keySet uint64

func one(key int) keySet          { return 1 << key }
func (s keySet) has(key int) bool { return s>>key&1 == 1 }
func (s keySet) count() int       { return bits.OnesCount64(uint64(s)) }
func (s keySet) first() int       { return bits.TrailingZeros64(uint64(s)) }
func (s keySet) names() (l []string) {
	s.each(func(k int) { l = append(l, keyName(k)) })
	return l
}

func (s keySet) each(do func(key int)) {
	for ; s != 0; s &= s - 1 {
		do(s.first())
	}
}

const everyKey keySet = 1<<keyCount - 1

// policies are those of the groups, each once.
func policies() (list []aside.Policy) {
	for _, g := range groups {
		if !slices.ContainsFunc(list, func(p aside.Policy) bool { return p.Name == g.policy.Name }) {
			list = append(list, g.policy)
		}
	}
	return list
}

func groupOf(key int) *group { return &groups[key/groupSize] }
func idOf(key int) string    { return fmt.Sprintf("%s%d", groupOf(key).letter, key%groupSize) }
func keyName(key int) string { return groupOf(key).policy.Category + ":" + idOf(key) }

var keysByName = func() map[string]int {
	m := make(map[string]int, keyCount)
	for k := range keyCount {
		m[keyName(k)] = k
	}
	return m
}()

// those are the keys of the groups for which is says yes.
func those(is func(g *group) bool) (s keySet) {
	for i := range groups {
		if is(&groups[i]) {
			s |= (1<<groupSize - 1) << (i * groupSize)
		}
	}
	return s
}

func tagged(tag string) keySet {
	return those(func(g *group) bool {
		for _, t := range append(append([]string(nil), g.tags...), g.late...) {
			if t == tag {
				return true
			}
		}
		return false
	})
}

func inCategory(name string) keySet {
	return those(func(g *group) bool { return g.policy.Category == name })
}

// matching knows the patterns above: a category, a letter and an asterisk.
func matching(pattern string) keySet {
	return those(func(g *group) bool { return g.policy.Category+":"+g.letter+"*" == pattern })
}

// ownedBy are the keys that only the worker in a role changes, in a schedule that has it so.
func ownedBy(role int) (s keySet) {
	for k := role; k < keyCount; k += roles {
		s |= one(k)
	}
	return s
}

// shunned reports whether a key is one that, in such a schedule, is read only through doors that join a load where there is one.
func shunned(key int) bool { return key%2 == 1 && key >= batchGroups*groupSize }

// batchOnly reports whether a key is one that the worker in a role reads little but in large batches and beside them, in such a
// schedule: what they do to its value is not mended by other reads.
func batchOnly(key, role int) bool { return role == 0 && key%4 == 2 && key < batchGroups*groupSize }

// batchKeys are those of the groups that are read in large batches.
const batchKeys keySet = 1<<(batchGroups*groupSize) - 1

// A value is what the source gives for a key, and caches keep.
type value struct {
	Key     int
	Version uint32
	Padding []byte `json:",omitempty"`
}

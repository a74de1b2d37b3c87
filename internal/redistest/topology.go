package redistest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// view is the cluster as one of its nodes sees it: node by id.
type view map[string]nodeView

type nodeView struct {
	flags   []string
	primary string // whose replica it is, "" for a primary
	epoch   int
	link    string   // "connected", or not
	slots   [][2]int // the first and the last of each range
}

// view asks a node for its view: https://redis.io/docs/latest/commands/cluster-nodes/.
func (c *Cluster) view(s *Server) (view, error) {
	if !s.runs() {
		return nil, fmt.Errorf("%s does not run", s.Addr())
	}
	reply, err := s.Do("CLUSTER", "NODES")
	if err != nil {
		return nil, err
	}
	v := view{}
	for line := range strings.Lines(reply.(string)) {
		f := strings.Fields(line)
		if len(f) < 8 {
			return nil, fmt.Errorf("CLUSTER NODES: %q", line)
		}
		n := nodeView{flags: strings.Split(f[2], ","), link: f[7]}
		if f[3] != "-" {
			n.primary = f[3]
		}
		n.epoch, _ = strconv.Atoi(f[6])
		for _, r := range f[8:] {
			if strings.HasPrefix(r, "[") {
				continue // on its way
			}
			from, to, ok := strings.Cut(r, "-")
			if !ok {
				to = from
			}
			first, _ := strconv.Atoi(from)
			last, err := strconv.Atoi(to)
			if err != nil {
				return nil, fmt.Errorf("CLUSTER NODES: %q", line)
			}
			n.slots = append(n.slots, [2]int{first, last})
		}
		v[f[0]] = n
	}
	return v, nil
}

// String is the same for two views where they agree on roles and slots.
func (v view) String() string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(v)) {
		fmt.Fprintln(&b, id, v[id].primary, v[id].slots)
	}
	return b.String()
}

// whole returns what is missing.
func (v view) whole() error {
	if len(v) != clusterNodes {
		return fmt.Errorf("knows %d nodes", len(v))
	}
	covered, epochs := 0, map[int]bool{}
	for id, n := range v {
		if n.primary == "" && epochs[n.epoch] {
			return fmt.Errorf("two primaries of epoch %d", n.epoch) // until they notice, as they do after takeovers
		}
		epochs[n.epoch] = epochs[n.epoch] || n.primary == ""
		for _, flag := range n.flags {
			if flag != "myself" && flag != "master" && flag != "slave" {
				return fmt.Errorf("%s is %s", id, flag)
			}
		}
		if n.link != "connected" {
			return fmt.Errorf("%s is %s", id, n.link)
		}
		for _, r := range n.slots {
			covered += r[1] - r[0] + 1
		}
	}
	if covered != Slots {
		return fmt.Errorf("%d slots have an owner", covered)
	}
	return nil
}

// owners returns who owns each slot, of which nobody may own some.
func (c *Cluster) owners() *[Slots]*Server {
	c.t.Helper()
	owners := new([Slots]*Server)
	var epochs [Slots]int
	asked := 0
	for _, s := range c.living() {
		v, err := c.view(s)
		if err != nil {
			continue // killed just now
		}
		asked++
		for id, n := range v {
			for _, r := range n.slots {
				for slot := r[0]; slot <= r[1]; slot++ {
					if owners[slot] == nil || n.epoch > epochs[slot] {
						owners[slot], epochs[slot] = c.ids[id], n.epoch
					}
				}
			}
		}
	}
	if asked == 0 {
		c.t.Fatalf("redistest: no node of the cluster answers")
	}
	return owners
}

// agree returns nil where all running nodes see the same roles and slots, and ok finds nothing wrong with them.
func (c *Cluster) agree(ok func(view) error) error {
	seen, by := "", ""
	for _, s := range c.living() {
		v, err := c.view(s)
		if err != nil {
			return err
		}
		if err := ok(v); err != nil {
			return fmt.Errorf("%s: %w", s.Addr(), err)
		}
		if text := v.String(); by != "" && text != seen {
			return fmt.Errorf("%s sees\n%sand %s\n%s", by, seen, s.Addr(), text)
		}
		seen, by = v.String(), s.Addr()
	}
	return nil
}

// listed returns nil where a node tells clients of all nodes that they might use.
func (c *Cluster) listed(by *Server) error {
	v, err := c.view(by)
	if err != nil {
		return err
	}
	slots, err := by.Do("CLUSTER", "SLOTS")
	if err != nil {
		return err
	}
	told := map[any]bool{}
	for _, group := range slots.([]any) {
		for _, node := range group.([]any)[2:] {
			told[node.([]any)[2]] = true
		}
	}
	for id, n := range v {
		if serves := len(n.slots) > 0 || len(v[n.primary].slots) > 0; serves && !told[id] {
			return fmt.Errorf("%s does not tell of %s", by.Addr(), id)
		}
	}
	return nil
}

// sameShard returns nil where two nodes are of one shard, to each of them.
func (c *Cluster) sameShard(a, b *Server) error {
	if majorVersion(a.bin) < 7 {
		return nil // no shards
	}
	// 1. A says which shard it is of. 2. B says the same, so whatever they send from now on says the same. 3. Each is asked what
	// it has heard. The other way round, what it hears next could be an older id.
	mine, err := shardID(a)
	if err != nil {
		return err
	}
	if other, err := shardID(b); err != nil || other != mine {
		return errors.Join(fmt.Errorf("%s is of shard %q, %s of %q", a.Addr(), mine, b.Addr(), other), err)
	}
	for _, s := range []*Server{a, b} {
		shards, err := s.Do("CLUSTER", "SHARDS")
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(shards.([]any), func(shard any) bool {
			return holds(shard, c.id(a)) && holds(shard, c.id(b))
		}) {
			return fmt.Errorf("%s sees %s and %s in two shards", s.Addr(), a.Addr(), b.Addr())
		}
	}
	return nil
}

// shardID returns the id of a node's shard, "" for Redis 7.0, where a shard is a primary with its replicas and has no id.
func shardID(s *Server) (string, error) {
	id, err := s.Do("CLUSTER", "MYSHARDID")
	if refusal := Error(""); errors.As(err, &refusal) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return id.(string), nil
}

// holds says whether a reply holds a value somewhere.
func holds(reply any, value string) bool {
	list, ok := reply.([]any)
	return ok && slices.ContainsFunc(list, func(e any) bool { return holds(e, value) }) || reply == value
}

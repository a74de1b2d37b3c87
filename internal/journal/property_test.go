package journal

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/gatewayz/aside/internal/keyspace"

	"github.com/stretchr/testify/require"
)

// A pretended server has carried out invalidations up to one of each name, and has a mark. It may come back as it was before.
type pretended struct {
	done map[string]int
	mark uint64
	old  []pretended
}

func (p *pretended) save() { p.old = append(p.old, pretended{done: maps.Clone(p.done), mark: p.mark}) }

// Whatever is lost on the way, what was invalidated is either carried out at its server, or waits.
func TestNothingThatWasInvalidatedIsForgotten(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		j := New()
		servers := []*pretended{{done: map[string]int{}}, {done: map[string]int{}}}
		server := func(name string) *pretended { return servers[int(name[len(name)-1])%2] }
		wanted := make(map[string]int) // how often a name was invalidated, by what has returned
		begun := make(map[string]int)
		var waiters []*Pending
		type order struct {
			names  []string
			sent   map[string]int
			at     Position
			direct bool
		}
		var flying []order
		carry := func(names []string) map[string]int {
			sent := make(map[string]int)
			for _, name := range names {
				s := server(name)
				s.done[name] = begun[name]
				sent[name] = begun[name]
			}
			return sent
		}
		check := func(step int) {
			if j.entries[keyspace.All] != nil {
				return
			}
			for name, n := range wanted {
				if server(name).done[name] < n && j.entries[name] == nil {
					t.Fatalf("seed %d, step %d: %s was invalidated %d times, its server knows of %d, and nothing waits", seed, step, name, n, server(name).done[name])
				}
			}
		}
		for step := range 3000 {
			caller := []string{"", "a", "b"}[r.IntN(3)]
			name := []string{"c:", keyspace.NamedPrefix, keyspace.PatternPrefix + "c:"}[r.IntN(3)] + strconv.Itoa(r.IntN(30))
			switch r.IntN(12) {
			case 0, 1: // an order that is sent, and whose reply is on its way
				at := j.Now(caller)
				begun[name]++
				flying = append(flying, order{[]string{name}, carry([]string{name}), at, true})
			case 2: // one that cannot be sent
				begun[name]++
				waiters = append(waiters, j.Enter(caller, name)...)
				wanted[name] = begun[name]
			case 3:
				tags, keys, upTo := j.Batch()
				names := append(tags, keys...)
				flying = append(flying, order{names: names, sent: carry(names), at: upTo})
			case 4:
				tasks, upTo := j.Patterns()
				for _, task := range tasks {
					flying = append(flying, order{names: []string{task.Name}, sent: carry([]string{task.Name}), at: upTo})
				}
			case 5, 6, 7: // a reply
				if len(flying) == 0 {
					continue
				}
				i := r.IntN(len(flying))
				o := flying[i]
				flying = append(flying[:i], flying[i+1:]...)
				for _, name := range o.names {
					_, again := j.Confirm(o.at, name)
					waiters = append(waiters, again...)
					if o.direct {
						wanted[name] = max(wanted[name], o.sent[name])
					}
				}
			case 8: // the mark
				mark := j.Watermark()
				for _, s := range servers {
					if s.mark > mark {
						continue
					}
					s.mark = mark
				}
				if r.IntN(2) == 0 {
					j.Recorded(mark)
				}
			case 9:
				servers[r.IntN(2)].save()
			case 10: // it comes back as it was
				s := servers[r.IntN(2)]
				if len(s.old) == 0 || r.IntN(3) > 0 {
					continue
				}
				i := r.IntN(len(s.old))
				j.ConnectionLost()
				s.done, s.mark = maps.Clone(s.old[i].done), s.old[i].mark
				s.old = s.old[:i]
				j.Recover(s.mark)
				check(step)
			case 11:
				if r.IntN(100) == 0 {
					j.ConnectionLost()
					j.Recover(servers[r.IntN(2)].mark)
				}
			}
			check(step)
		}
		// In the end all is confirmed, and whoever waits is told.
		for range 5 {
			tags, keys, upTo := j.Batch()
			j.Confirm(upTo, append(tags, keys...)...)
			tasks, upTo := j.Patterns()
			for _, task := range tasks {
				j.Confirm(upTo, task.Name)
			}
		}
		require.Empty(t, j.entries)
		require.Zero(t, j.waiting.Load())
		for i, w := range waiters {
			select {
			case <-w.confirmed:
			default:
				t.Fatal(fmt.Sprint("seed ", seed, ": the waiter ", i, " of ", len(waiters), " is never told"))
			}
		}
		j.Recorded(j.Watermark())
		by, all := j.outside.Taken()
		require.Empty(t, by)
		require.Zero(t, all)
		require.Zero(t, j.own)
	}
}

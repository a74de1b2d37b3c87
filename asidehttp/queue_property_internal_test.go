package asidehttp

import (
	"container/list"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Whatever is put into a queue comes out once, and nothing of it stays behind.
func TestAQueueGivesBackWhatItWasGiven(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		q := newQueue(50)
		now := time.Now()
		held := make(map[*delivery]bool)
		drop := func(d *delivery) { require.True(t, held[d]); delete(held, d) }
		check := func() { // without require, which would take most of the time
			bytes, waiting, places := 0, 0, len(q.failed)
			for d := range held {
				bytes += d.target.size()
			}
			for name, l := range q.lanes {
				if name != l.within || l.waiting <= 0 || (l.fresh.Len() > 0) != (l.atFresh != nil) || (l.ready.Len() > 0) != (l.atReady != nil) {
					t.Fatalf("seed %d: the lane %q is %+v", seed, name, l)
				}
				waiting += l.waiting
				places += l.fresh.Len() + l.ready.Len()
			}
			for _, lanes := range []*list.List{q.fresh, q.ready} {
				for e := lanes.Front(); e != nil; e = e.Next() {
					if l := e.Value.(*lane); q.lanes[l.within] != l {
						t.Fatalf("seed %d: %+v is not the lane %q", seed, l, l.within)
					}
				}
			}
			if n := len(held); q.len() != n || waiting != n || places != n || bytes != q.bytes {
				t.Fatalf("seed %d: %d held, %d in the queue, %d waiting, in %d places, %d bytes of %d", seed, n, q.len(), waiting, places, q.bytes, bytes)
			}
		}
		for range 2000 {
			switch r.IntN(8) {
			case 0, 1, 2, 3:
				d := &delivery{target: Target{Tag: "t" + strconv.Itoa(r.IntN(60)), Within: []string{"", "a", "b", "t1"}[r.IntN(4)]}, attempts: r.IntN(2), due: now.Add(time.Duration(r.IntN(100)) * time.Second)}
				if q.find(d.target) == nil {
					q.push(d)
					held[d] = true
				}
			case 4, 5:
				if q.len() > 0 && !q.due().After(now) {
					drop(q.take(now, r.IntN(2) == 0))
				}
			case 6:
				if r.IntN(5) == 0 {
					tag, n := []string{"", "a", "b", "t1"}[r.IntN(4)], 0
					for d := range held {
						if tag != "" && d.target.Within == tag {
							delete(held, d)
							n++
						}
					}
					require.Equal(t, n, q.takeWithin(tag))
				}
			default:
				now = now.Add(time.Duration(r.IntN(20)) * time.Second)
			}
			check()
		}
		now = now.Add(time.Hour)
		for q.len() > 0 {
			drop(q.take(now, r.IntN(2) == 0))
			check()
		}
		require.Empty(t, q.lanes)
	}
}

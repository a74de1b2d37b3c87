package fleet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const ms = int64(time.Millisecond)

// What is counted must be what happened: here is a history of a TTL of 1 s and a load of 100 ms, and what goes wrong in it.
func TestWhatAFleetHasToldIsJudged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(c *Config, e *events)
		broken string // "" for none
		slow   string
	}{
		"right": {change: func(*Config, *events) {}},
		"the second load of one expiry": {
			change: func(_ *Config, e *events) { e.loads = append(e.loads, &load{pid: 2, began: 1050 * ms}) },
			broken: "2 loads for one expiry",
		},
		"a second load that begins when the first one has ended": {
			change: func(_ *Config, e *events) {
				e.loads = append(e.loads, &load{pid: 2, began: 1101 * ms, ended: 1201 * ms})
			},
			broken: "1 loads before their time",
		},
		"no load": {
			change: func(_ *Config, e *events) { e.loads = e.loads[:1] },
			broken: "0 expiries",
		},
		"a call that waits": {
			change: func(_ *Config, e *events) {
				e.calls = append(e.calls, call{pid: 1, began: 1040 * ms, took: 61 * ms, load: 1000 * ms})
			},
			broken: "1 calls waited for a load",
			slow:   "1 calls waited for a load",
		},
		"a call that waits, without Stale": {
			change: func(c *Config, e *events) {
				c.Strategy = Strategy{RefreshAhead: 0.1}
				e.calls = []call{{pid: 1, began: 1040 * ms, took: 61 * ms, load: 1000 * ms}}
			},
			slow: "1 calls waited for a load",
		},
		"a call that looks when the load has just ended": {
			change: func(_ *Config, e *events) {
				e.calls = append(e.calls, call{pid: 1, began: 1055 * ms, took: 47 * ms, load: 1000 * ms})
			},
		},
		"a call of a process that does not run until the load has ended": {
			change: func(_ *Config, e *events) {
				e.calls = append(e.calls, call{pid: 1, began: 1010 * ms, took: 92 * ms, load: 1000 * ms})
				e.stalls = append(e.stalls, stall{pid: 1, began: 1005 * ms, took: 60 * ms})
			},
		},
		"a value that is too old": {
			change: func(_ *Config, e *events) { e.calls = append(e.calls, call{pid: 1, began: 2001 * ms, took: ms}) },
			broken: "2.001s after its load began",
		},
		"a slow call": {
			change: func(_ *Config, e *events) { e.calls = append(e.calls, call{pid: 1, began: 500 * ms, took: 101 * ms}) },
			slow:   "1 calls took over 100 ms",
		},
		"a slow call of a process that does not run": {
			change: func(_ *Config, e *events) {
				e.calls = append(e.calls, call{pid: 1, began: 500 * ms, took: 150 * ms})
				e.stalls = append(e.stalls, stall{pid: 1, began: 450 * ms, took: 150 * ms})
			},
		},
		"a slow call while another process does not run": {
			change: func(_ *Config, e *events) {
				e.calls = append(e.calls, call{pid: 1, began: 500 * ms, took: 150 * ms})
				e.stalls = append(e.stalls, stall{pid: 2, began: 450 * ms, took: 150 * ms})
			},
			slow: "1 calls took over 100 ms",
		},
		"a killed load and its successor": {
			change: func(_ *Config, e *events) {
				e.loads = append(e.loads, &load{pid: 2, began: 1000 * ms, killed: true})
			},
		},
		"a killed load and two others": {
			change: func(_ *Config, e *events) {
				e.loads = append(e.loads, &load{pid: 2, began: 1000 * ms, killed: true}, &load{pid: 3, began: 1050 * ms})
			},
			broken: "3 loads for one expiry at which a process was killed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := Config{TTL: time.Second, Load: 100 * time.Millisecond, For: 3 * time.Second, Strategy: Strategy{Stale: time.Second}}
			e := &events{
				loads: []*load{{pid: 1, began: 0, ended: 100 * ms}, {pid: 1, began: 1000 * ms, ended: 1100 * ms}},
				calls: []call{{pid: 1, began: 1 * ms, took: 100 * ms}, {pid: 1, began: 1050 * ms, took: ms}, {pid: 2, began: 1200 * ms, took: ms, load: 1000 * ms}},
			}
			c.change(&conf, e)
			r := e.judge(conf)
			for want, got := range map[string][]string{"broken": r.Broken(conf), "slow": r.Slow(conf)} {
				text := c.broken
				if want == "slow" {
					text = c.slow
				}
				if text == "" {
					require.Empty(t, got, want)
					continue
				}
				require.Len(t, got, 1, want)
				require.Contains(t, got[0], text)
			}
		})
	}
}

func TestAPolicyWithoutAStrategyPromisesItsTTLAlone(t *testing.T) {
	t.Parallel()
	c := Config{TTL: time.Second, Load: 100 * time.Millisecond, For: 3 * time.Second}
	r := Result{Most: 5, Waited: 7, Missed: 9, Early: 1, Oldest: time.Second}
	require.Empty(t, append(r.Broken(c), r.Slow(c)...))
	r.Oldest++
	require.Len(t, r.Broken(c), 1)
}

package main

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each request goes to each server once, and each server is the first one equally often.
func TestTheServersTakeTurns(t *testing.T) {
	const servers, requests = 3, 30
	got := make(map[[2]int]int)
	first := make(map[int]int)
	for i := range servers * requests {
		number, server := turnOf(i, servers)
		got[[2]int{number, server}]++
		if i%servers == 0 {
			first[server]++
		}
	}
	require.Len(t, got, servers*requests)
	require.Equal(t, map[int]int{0: 10, 1: 10, 2: 10}, first)
}

func TestHowMuchChanceThereIsInARatio(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 7))
	draw := func(slower float64) (windows [][]time.Duration) {
		for range expiringWindows {
			var window []time.Duration
			for range 40 {
				window = append(window, time.Duration(slower*rnd.ExpFloat64()*float64(time.Millisecond)))
			}
			windows = append(windows, window)
		}
		return windows
	}
	require.Regexp(t, `^\(0.*, within noise\)$`, spreadOf(draw(1), draw(1), 99))
	require.Regexp(t, `, slower\)$`, spreadOf(draw(4), draw(1), 99))
	require.Regexp(t, `, faster\)$`, spreadOf(draw(1), draw(4), 99))
	require.Empty(t, spreadOf(make([][]time.Duration, expiringWindows), draw(1), 99))

	// A part of the time in which all is slow concerns both: it is no difference.
	a, b := draw(1), draw(1)
	a[3], b[3] = []time.Duration{time.Second, time.Second}, []time.Duration{time.Second, time.Second}
	require.Regexp(t, `, within noise\)$`, spreadOf(a, b, 99))
}

package redisstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

func TestEachTripHasACause(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	reply := func(text string) error { return errorReply(t, server, text).Error() }
	for want, causes := range map[TripCause][]error{
		TripBroken:  {errBroken, errors.Join(errBroken, io.EOF), io.EOF, errors.Join(errBroken, errOtherData)},
		TripTimeout: {context.DeadlineExceeded, os.ErrDeadlineExceeded, errors.Join(errBroken, fmt.Errorf("read: %w", os.ErrDeadlineExceeded))},
		TripSlow:    {ErrSlow},
		TripSilent:  {errors.Join(errBroken, errSilent)},
		TripUnready: {reply("LOADING Redis is loading the dataset in memory"), reply("MASTERDOWN no link"), reply("BUSY a script")},
		TripRefused: {reply("NOPERM no permissions"), reply("READONLY a replica"), reply("MISCONF disk"), &refusal{}},
	} {
		for _, cause := range causes {
			require.Equal(t, want, tripCauseOf(cause), "%v", cause)
		}
	}
	for cause := range TripCause(TripCauses) {
		require.NotEmpty(t, cause.String())
	}
}

// Each time that callers are no longer sent to the server is one trip, whoever notices it first.
func TestTripsOfANodeAreCounted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := connected(t, server.Addr())
	require.Zero(t, s.Nodes()[0].Trips)
	want := [TripCauses]uint64{}
	for _, cause := range []error{ErrSlow, errors.Join(errBroken, errSilent), ErrSlow} {
		l := only(s)
		now := l.session.Load()
		l.trip(now, cause)
		l.trip(now, io.EOF) // others notice it too
		want[tripCauseOf(cause)]++
		require.Equal(t, want, s.Nodes()[0].Trips)
		require.Eventually(t, func() bool { return s.Up() }, bound, time.Millisecond)
	}
	server.Kill()
	want[TripBroken]++
	require.Eventually(t, func() bool { return s.Nodes()[0].Trips == want }, bound, time.Millisecond, "%v", s.Nodes())
}

// The primary that Sentinels name next has trips of its own.
func TestTripsBelongToAnAddress(t *testing.T) {
	t.Parallel()
	var l link
	l.addrs = []string{"a:1", "b:1"}
	trip := func(cause error) {
		now := new(session)
		l.session.Store(now)
		l.trip(now, cause)
	}
	l.lost = make(chan struct{}, 1)
	trip(ErrSlow)
	trip(io.EOF)
	require.Equal(t, [TripCauses]uint64{TripBroken: 1, TripSlow: 1}, l.tripsOf("a:1"))
	l.at.Store(1)
	require.Zero(t, l.tripsOf("b:1"))
	trip(ErrSlow)
	require.Equal(t, [TripCauses]uint64{TripSlow: 1}, l.tripsOf("b:1"))
	require.Zero(t, l.tripsOf("a:1"), "it begins anew")
}

// A connection that rests, since this process is idle, is told apart from one that was lost.
func TestIdlenessIsToldApart(t *testing.T) {
	t.Parallel()
	var gaps, idle atomic.Int64
	server := redistest.Start(t)
	s, _, read := restlessOf(t, server, Options{
		Gap: func() { gaps.Add(1) },
		Idling: Idling{Calls: func() uint64 { return 7 }, After: 2 * time.Second, Began: func() {
			if gaps.Load() <= idle.Load() {
				t.Error("Gap comes first")
			}
			idle.Add(1)
		}},
	})
	read()
	require.Eventually(t, func() bool { return idle.Load() == 1 }, bound, time.Millisecond)
	require.EqualValues(t, 1, gaps.Load())
	read()
	for _, w := range only(s).conns() {
		w.Close(io.EOF)
	}
	require.Greater(t, gaps.Load(), int64(1))
	require.EqualValues(t, 1, idle.Load())
}

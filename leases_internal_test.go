package aside

import (
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/stretchr/testify/require"
)

func TestALeaseThatCannotBeGivenBackIsGivenUp(t *testing.T) {
	t.Parallel()
	u := unreturned{wake: make(chan struct{}, 1)}
	reqs := []redisstore.Request{{Key: "a"}, {Key: "b"}}
	u.add(0, reqs, nil)
	require.True(t, u.none(), "they were given back")
	failed := []error{nil, errors.New("broken")}
	u.add(0, reqs, failed)
	<-u.wake
	for again := range mostTries {
		got, tries := u.take()
		require.Equal(t, reqs[1:], got)
		require.Equal(t, again, tries)
		require.True(t, u.none())
		u.add(tries+1, got, failed[1:])
	}
	require.True(t, u.none())
	got, _ := u.take()
	require.Empty(t, got)
}

func TestLeasesToGiveBackAreBounded(t *testing.T) {
	t.Parallel()
	u := unreturned{wake: make(chan struct{}, 1)}
	reqs := make([]redisstore.Request, 1024)
	for i := range reqs {
		reqs[i].Nonce = strconv.Itoa(i)
	}
	failed := slices.Repeat([]error{errors.New("broken")}, len(reqs))
	for range 2 * mostUnreturned / len(reqs) {
		u.add(1, reqs, failed)
	}
	u.add(0, reqs[:1], failed)
	n := 0
	for {
		got, tries := u.take()
		if len(got) == 0 {
			break
		}
		require.Equal(t, 1, tries)
		require.LessOrEqual(t, len(got), replayAtOnce)
		n += len(got)
	}
	require.Equal(t, mostUnreturned, n)
	require.True(t, u.none())
}

package engine

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// A load adds to the tags of its attempt, while that one's caller looks for an older value. The race detector sees it if both touch the same.
func TestACallersRequestIsNotChangedByItsLoad(t *testing.T) {
	t.Parallel()
	a := newAttempt(Request{Key: "k", Tags: []string{"x"}, Limits: &Limits{}})
	stored := make(chan struct{})
	go func() {
		defer close(stored)
		a.Tags = slices.Concat(a.Tags, []string{"late"})
		a.reason = "stored"
	}()
	b := a.again()
	<-stored
	require.Equal(t, Request{Key: "k", Tags: []string{"x"}, Limits: a.Limits}, b.Request)
	require.Equal(t, notCached, b.miss)
	require.Equal(t, []string{"x", "late"}, a.Tags)
	require.Equal(t, b.Request, a.again().Request, "afterwards too")
}

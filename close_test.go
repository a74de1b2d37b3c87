package aside_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/asidetest"
)

// A slowCodec encodes when the test lets it.
type slowCodec struct{ began, release chan struct{} }

func (c *slowCodec) Name() string { return "slow" }

func (c *slowCodec) Marshal(any) ([]byte, error) {
	close(c.began)
	<-c.release
	return []byte("v"), nil
}

func (c *slowCodec) Unmarshal([]byte, any) error { return errors.New("not in this test") }

// Hazard 61: a Set that has found the cache open goes on while Close closes it.
func TestCloseWaitsForASetThatIsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := aside.New(aside.Options{Logger: asidetest.Quiet()})
		require.NoError(t, err)
		codec := &slowCodec{make(chan struct{}), make(chan struct{})}
		policy := aside.Policy{Name: "slow", Category: "slow", TTL: time.Hour, Codec: codec, CloneOnRead: true}
		set, closed := make(chan error, 1), make(chan struct{})
		go func() { set <- aside.Set(t.Context(), c, policy.Key("a"), "v") }()
		<-codec.began
		go func() { defer close(closed); c.Close() }()
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("Close has not waited")
		default:
		}
		for name, call := range map[string]func() error{
			"Set":        func() error { return aside.Set(t.Context(), c, policy.Key("b"), "v") },
			"Get":        func() error { _, err := aside.Get[string](t.Context(), c, policy.Key("b")); return err },
			"Invalidate": func() error { _, err := c.Invalidate(t.Context(), policy.Key("b")); return err },
			"All":        func() error { _, err := c.InvalidateAll(t.Context()); return err },
			"Category":   func() error { _, err := c.InvalidateCategory(t.Context(), "slow"); return err },
			"Tags":       func() error { _, err := c.InvalidateTags(t.Context(), "x"); return err },
			"Changes": func() error {
				_, err := c.InvalidateChanges(t.Context(), aside.Changes{Tags: []string{"x"}})
				return err
			},
			"Policy":  func() error { _, err := c.InvalidatePolicy(t.Context(), policy); return err },
			"Ready":   func() error { return c.Ready(t.Context()) },
			"Pattern": func() error { _, err := c.InvalidatePattern(t.Context(), policy.Match("b")); return err },
		} {
			require.ErrorIs(t, call(), aside.ErrClosed, name)
		}
		close(codec.release)
		require.NoError(t, <-set)
		<-closed
	})
}

// What the program brings may never come back.
func TestCloseWaitsOnlySoLongForWhatDoesNotReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log asidetest.Logbook
		forever := make(chan struct{})
		c, err := aside.New(aside.Options{Logger: log.Logger(), OnInvalidated: func(aside.Invalidation) { <-forever }})
		require.NoError(t, err)
		_, err = c.Invalidate(context.Background(), asidetest.Items.Key("a"))
		require.NoError(t, err)
		synctest.Wait()
		began := time.Now()
		require.NoError(t, c.Close())
		require.Equal(t, 10*time.Second, time.Since(began))
		require.Contains(t, log.String(), "OnInvalidated")
		close(forever)
	})
}

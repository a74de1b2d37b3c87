package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/flight"
)

// Whether the flight or its loader is the first to say that the time is up is a race: here the loader is.
func TestALoaderThatNoticesTheEndOfItsTimeFirstHasTimedOut(t *testing.T) {
	t.Parallel()
	own := errors.New("its own trouble")
	timedOut, cancel := context.WithCancelCause(t.Context())
	cancel(flight.ErrTimeout)
	left, leave := context.WithCancel(t.Context())
	leave()
	for _, err := range []error{context.DeadlineExceeded, context.Canceled, fmt.Errorf("query: %w", context.Canceled)} {
		require.Equal(t, flight.ErrTimeout, loadError(timedOut, err))
		require.Equal(t, err, loadError(left, err), "nobody's time was up")
		require.Equal(t, err, loadError(t.Context(), err), "some time-out of the loader's own")
	}
	require.Equal(t, own, loadError(timedOut, own), "an error that is not about time stays")
}

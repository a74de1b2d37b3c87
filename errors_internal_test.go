package aside

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
		e := flightError(loadError(timedOut, err), "k:a")
		require.ErrorIs(t, e, &Error{Code: CodeLoadTimeout})
		require.Equal(t, err, flightError(loadError(left, err), "k:a"), "nobody's time was up")
		require.Equal(t, err, flightError(loadError(t.Context(), err), "k:a"), "some time-out of the loader's own")
	}
	require.Equal(t, own, flightError(loadError(timedOut, own), "k:a"), "an error that is not about time stays")
}

package asideotel_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asideotel"
)

// A panic of the program's Keys costs an operation its span. It does not end the span of the operation around it.
func TestAPanicOfKeysEndsNoOtherSpan(t *testing.T) {
	t.Parallel()
	c := open(t, aside.Options{}, asideotel.Options{Keys: func(key string) string {
		if strings.HasSuffix(key, ":inner") {
			panic("no such key")
		}
		return key
	}})
	c.within("program", func(ctx context.Context) {
		_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("outer"), func(ctx context.Context) (string, error) {
			_, err := aside.GetOrLoad(ctx, c.Cache, models.Key("inner"), value("v"))
			require.NoError(t, err)
			require.Empty(t, c.spans.Ended(), "the call and the load around it go on")
			return "v", nil
		})
		require.NoError(t, err)
	})
	require.Equal(t, "ok", attributes(c.one(t, "aside.load models-label"))["aside.outcome"])
	require.Equal(t, "models:outer", attributes(c.one(t, "aside.call models-label"))["aside.key"])
}

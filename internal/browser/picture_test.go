package browser

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// TestThePictureOfTheReadme makes the picture of the README: ASIDE_PICTURE names its file. make picture runs it.
func TestThePictureOfTheReadme(t *testing.T) {
	file := os.Getenv("ASIDE_PICTURE")
	if file == "" {
		t.Skip("make picture makes the picture: it takes some minutes, as there must be something to see")
	}
	c, err := aside.New(aside.Options{
		Redis:     rueidis.ClientOption{InitAddress: []string{redistest.Start(t).Addr()}, ForceSingleClient: true},
		OpTimeout: time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	defer c.Close()
	require.Eventually(t, func() bool { return c.Health().State == aside.StateConnected }, bound, time.Millisecond)
	o := options()
	o.Name = "gateway"
	s := dashboard(t, c, o)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { traffic(ctx, c); close(done) }()
	defer func() { stop(); <-done }()
	<-time.After(5*time.Minute + 5*time.Second)
	tb := newTab(t, false, 1280, 800)
	tb.login(s.url, keyAll)
	tb.await("figures of several polls", "performance.getEntriesByType('resource').filter(e => e.name.includes('overview.json')).length > 2")
	tb.picture(file)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(150<<10))
}

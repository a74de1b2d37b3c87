package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/internal/redistest"
)

// A connection whose life ends as planned is replaced while it is in use: nobody is without one, and it is no change of state.
func TestAPlannedReconnectIsNoLoss(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*rueidis.ClientOption){
		"tracked":   func(*rueidis.ClientOption) {},
		"untracked": func(o *rueidis.ClientOption) { o.AlwaysRESP2 = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			var changes atomic.Int64
			o := Options{Client: clientOf(server.Addr()), Format: format, OnState: func(State) { changes.Add(1) }}
			o.Client.ConnLifetime = 50 * time.Millisecond
			change(&o.Client)
			s := up(t, o)
			seen := map[*session]bool{}
			require.Eventually(t, func() bool {
				require.NoError(t, s.Get(t.Context(), Get{Key: key})[0].Err)
				_, errs := s.Remove(t.Context(), key)
				require.Nil(t, errs)
				seen[only(s).session.Load()] = true
				return len(seen) > 5
			}, bound, time.Millisecond)
			require.EqualValues(t, 1, changes.Load())
			require.True(t, s.State().Up)
		})
	}
}

// 1. A caller takes the connection in use, and has to wait before it sends.
// 2. Another connection takes its place as planned.
// 3. The caller sends.
func TestWhoHasTakenAConnectionBeforeItIsReplacedIsAnswered(t *testing.T) {
	t.Parallel()
	o := Options{Client: clientOf(redistest.Start(t).Addr()), Format: format}
	o.Client.ConnLifetime = 50 * time.Millisecond
	s := up(t, o)
	for range 3 {
		taken := only(s).session.Load()
		require.Eventually(t, func() bool { return only(s).session.Load() != taken }, bound, time.Millisecond)
		require.NoError(t, taken.client.Do(t.Context(), taken.client.B().Ping().Build()).Error())
	}
}

// While there is no other connection to be had, the one whose life has ended as planned stays in use.
func TestAConnectionLivesOnWhereNoneCanTakeItsPlace(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var refuses atomic.Bool
	var refused atomic.Int64
	o := Options{Client: clientOf(server.Addr()), Format: format}
	o.Client.ConnLifetime = 50 * time.Millisecond
	o.Client.DialCtxFn = func(ctx context.Context, dst string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		if refuses.Load() {
			refused.Add(1)
			return nil, errors.New("no route")
		}
		return d.DialContext(ctx, "tcp", dst)
	}
	s := up(t, o)
	refuses.Store(true)
	require.Eventually(t, func() bool { return refused.Load() > 0 }, bound, time.Millisecond)
	for range 100 {
		require.NoError(t, s.Get(t.Context(), Get{Key: key})[0].Err)
	}
	require.True(t, s.State().Up)
	server.Kill()
	require.Eventually(t, func() bool { return !s.State().Up }, bound, time.Millisecond, "its loss is one all the same")
}

// A connection that breaks as soon as it is there is not made again and again at once.
func TestShortSessionsFollowEachOtherSlowly(t *testing.T) {
	t.Parallel()
	proxy := redistest.StartProxy(t, redistest.Start(t).Addr())
	var mu sync.Mutex
	var came []time.Time
	o := Options{Client: clientOf(proxy.Addr()), Format: format, OnState: func(s State) {
		if s.Up {
			mu.Lock()
			defer mu.Unlock()
			came = append(came, time.Now())
			go proxy.CloseConnections()
		}
	}}
	open(t, o)
	const sessions = 6
	require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(came) > sessions }, bound, time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	// The pauses are half of 50, 100, 200, 400, 800 and 1000 ms at least.
	require.Greater(t, came[sessions].Sub(came[0]), (50+100+200+400+800+1000)*time.Millisecond/2)
}

// What listens to announcements is connected anew as well.
func TestAnnouncementsAreHeardAgainAfterALoss(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartProxy(t, server.Addr())
	heard := make(chan string, 1000)
	o := Options{Client: clientOf(proxy.Addr()), Format: format, Pushed: func(key string) { heard <- key }}
	o.Client.AlwaysRESP2 = true
	up(t, o)
	other := Options{Client: clientOf(server.Addr()), Format: format}
	other.Client.AlwaysRESP2 = true
	says := up(t, other)
	hears := func() bool {
		_, errs := says.Remove(t.Context(), key)
		require.Nil(t, errs)
		select {
		case <-heard:
			return true
		case <-time.After(10 * time.Millisecond):
			return false
		}
	}
	require.Eventually(t, hears, bound, time.Millisecond)
	for range 3 {
		proxy.CloseConnections()
		require.Eventually(t, func() bool { return proxy.Connections() >= 2 }, bound, time.Millisecond)
		for len(heard) > 0 {
			<-heard
		}
		require.Eventually(t, hears, bound, time.Millisecond)
	}
}

// The bytes that were sent have their time as well as those that were received.
func TestWhatIsSentTakesItsTime(t *testing.T) {
	t.Parallel()
	answered := []rueidis.RedisResult{rueidis.NewResult(rueidis.RedisMessage{}, nil)}
	failures := func(took time.Duration, sent int64) int32 {
		l := &link{breaker: breaker{opTimeout: 10 * time.Millisecond, grace: &grace{limit: 10 * time.Millisecond}}}
		l.grace.over.Store(true)
		l.note(context.Background(), new(session), took, sent, answered)
		return l.failed.Load()
	}
	require.EqualValues(t, 1, failures(30*time.Millisecond, 0))
	require.EqualValues(t, 0, failures(30*time.Millisecond, 1<<20))
	require.EqualValues(t, 1, failures(60*time.Millisecond, 1<<20))
	require.EqualValues(t, 0, failures(inBulk, 0), "and on the second connection they say nothing")
}

// throttled passes on so many bytes in a second.
type throttled struct {
	net.Conn
	rate float64
}

func (c throttled) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		part := b[:min(len(b), 64<<10)]
		time.Sleep(time.Duration(float64(len(part)) / c.rate * float64(time.Second)))
		var m int
		m, err = c.Conn.Write(part)
		n, b = n+m, b[m:]
	}
	return n, err
}

// A large value on a slow line takes Redis from nobody.
func TestALargeValueOnASlowLineIsNoFailureOfTheServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var changes atomic.Int64
	o := Options{Client: clientOf(server.Addr()), Format: format, OpTimeout: 50 * time.Millisecond, OnState: func(State) { changes.Add(1) }}
	o.Client.DialCtxFn = func(ctx context.Context, dst string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		conn, err := d.DialContext(ctx, "tcp", dst)
		return throttled{conn, 8 << 20}, err
	}
	s := up(t, o)
	now := only(s).session.Load()
	require.Eventually(t, func() bool { return now.inBulk() != now }, bound, time.Millisecond)
	chunk := make([]byte, ChunkSize)
	f := Filling{Key: key, Nonce: "n", Value: []byte("value")}
	for range 32 {
		f.Chunks = append(f.Chunks, chunk)
	}
	require.True(t, acquireOne(t, s, f.Nonce, Rejected{}).Granted)
	held, _, err := s.putChunks(t.Context(), f)
	require.NoError(t, err)
	require.True(t, held)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, ErrBudget)
	defer cancel()
	_, _, err = s.putChunks(ctx, f)
	require.Error(t, err, "one that has not the time for it")
	require.EqualValues(t, 1, changes.Load())
	require.Zero(t, only(s).failed.Load())
}

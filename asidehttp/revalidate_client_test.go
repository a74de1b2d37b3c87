package asidehttp_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatewayz/aside/asidehttp"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAClientThatPanicsIsARequestThatFails(t *testing.T) {
	const env = "ASIDE_TEST_ALONE"
	if os.Getenv(env) != "1" {
		t.Parallel()
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.timeout", "50s")
		cmd.Env = append(os.Environ(), env+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("its process has ended: %v\n%.2000s", err, out)
		}
		return
	}
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			if tries.Add(1) <= 2 {
				panic("oops")
			}
			return status(200), nil
		})}})
		defer r.Close(t.Context())
		r.Send(asidehttp.Target{Tag: "a"})
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, r.Stats().Delivered)
	})
}

func TestAClientThatEndsItsGoroutineIsARequestThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			if tries.Add(1) <= 2 {
				runtime.Goexit()
			}
			return status(200), nil
		})}})
		defer r.Close(t.Context())
		r.Send(asidehttp.Target{Tag: "a"})
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, r.Stats().Delivered)
		require.Zero(t, r.Stats().Waiting)
	})
}

func TestCloseEndsWithItsContextWhateverTheClientDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		forever := make(chan struct{})
		r := revalidator(t, asidehttp.RevalidatorOptions{Client: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			<-forever // it does not look at the request's context
			return status(200), nil
		})}})
		r.Send(asidehttp.Target{Tag: "a"})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		closed := make(chan error, 1)
		go func() { closed <- r.Close(ctx) }()
		select {
		case err := <-closed:
			require.Error(t, err)
		case <-time.After(10 * time.Second):
			t.Error("Close has not returned 9 s after the end of its context")
		}
		close(forever)
		synctest.Wait()
	})
}

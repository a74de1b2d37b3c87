package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// callers is how many requests there are at once.
const callers = 8

// send sends requests to the server until the context ends, or the server does not answer. Some models and sessions are asked for far more often than others (Zipf).
func send(ctx context.Context, base string, rate float64) error {
	transport := &http.Transport{MaxIdleConnsPerHost: callers}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	sending, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
			draw := newDraw(rnd)
			pause := time.NewTimer(0)
			defer pause.Stop()
			for {
				select {
				case <-sending.Done():
					return
				case <-pause.C:
				}
				// Exponential pauses: requests come as those of many users do.
				pause.Reset(time.Duration(rnd.ExpFloat64() * callers / rate * float64(time.Second)))
				method, path := draw()
				if err := ask(sending, client, method, base+path); err != nil && sending.Err() == nil {
					stop(fmt.Errorf("the server does not answer: %w", err))
				}
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(sending)
}

// newDraw returns a function that draws a request: six in ten for a session, one in a hundred changes a model, the others are for a model.
func newDraw(rnd *rand.Rand) func() (method, path string) {
	model, session := rand.NewZipf(rnd, 1.3, 1, numModels-1), rand.NewZipf(rnd, 1.1, 1, numSessions-1)
	return func() (method, path string) {
		switch n := rnd.IntN(100); {
		case n < 60:
			return http.MethodGet, fmt.Sprint("/sessions/", session.Uint64())
		case n < 61:
			return http.MethodPost, fmt.Sprint("/models/", model.Uint64())
		default:
			return http.MethodGet, fmt.Sprint("/models/", model.Uint64())
		}
	}
}

// ask sends a request. An answer with an error is an answer: the source sometimes fails.
func ask(ctx context.Context, client *http.Client, method, address string) error {
	r, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

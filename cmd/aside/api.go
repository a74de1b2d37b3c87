package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"
)

// mostAnswered bounds an answer: metrics of many labels are some hundred kilobytes.
const mostAnswered = 16 << 20

// An api is a handler of package asidehttp in a process.
type api struct {
	url, key string
	client   *http.Client
}

// apis are those of -api. The key is in ASIDE_API_KEY.
func (c *call) apis(urls ...string) ([]api, error) {
	if len(c.args) > 0 {
		return nil, usage("it takes no arguments: give -api URL")
	}
	if len(urls) == 0 {
		return nil, usage("give -api URL, where the program serves asidehttp.Metrics, such as http://127.0.0.1:8080/api/cache/metrics")
	}
	key := os.Getenv("ASIDE_API_KEY")
	if key == "" {
		return nil, usage("set ASIDE_API_KEY to a key of the program's admin API")
	}
	// A redirect could take the key elsewhere.
	client := &http.Client{Timeout: c.timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var list []api
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			return nil, usage("-api is no URL, or has a user name or a password: write http://HOST:PORT/PATH, with the key in ASIDE_API_KEY")
		}
		list = append(list, api{text, key, client})
	}
	return list, nil
}

// counters are those of a label that are shown.
type counters struct {
	Hits       uint64  `json:"hits"`
	Misses     uint64  `json:"misses"`
	MemoryHits uint64  `json:"memoryHits"`
	RedisHits  uint64  `json:"redisHits"`
	StaleHits  uint64  `json:"staleHits"`
	Fallbacks  uint64  `json:"fallbacks"`
	Loads      uint64  `json:"loads"`
	Errors     uint64  `json:"errors"`
	MeanLoadMS float64 `json:"meanLoadMs"`
}

// A reading is the metrics of one process.
type reading struct {
	at      time.Time
	Process string              `json:"process"` // which process it is; "" from a build that does not say so
	Labels  map[string]counters `json:"metrics"`
}

func (a api) read(ctx context.Context) (r reading, err error) {
	if err := a.do(ctx, http.MethodGet, nil, &r); err != nil {
		return r, err
	}
	if r.Labels == nil {
		return r, fmt.Errorf("%s: the answer is none of asidehttp.Metrics: check the path", oneLine(a.url))
	}
	r.at = time.Now()
	return r, nil
}

// do sends a request, and reads the answer. Of a refusal the error has what the process says to do instead.
func (a api) do(ctx context.Context, method string, order, answer any) error {
	var body io.Reader
	if order != nil {
		text, err := json.Marshal(order)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.url, body)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+a.key)
	if order != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := a.client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return fmt.Errorf("%s: %w", oneLine(a.url), err)
	}
	defer response.Body.Close()
	text := io.LimitReader(response.Body, mostAnswered)
	if response.StatusCode != http.StatusOK {
		var problem struct {
			Detail string `json:"detail"`
		}
		_ = json.NewDecoder(text).Decode(&problem) // an answer of something else has none
		return fmt.Errorf("%s: %s %s", oneLine(a.url), response.Status, oneLine(problem.Detail))
	}
	if err := json.NewDecoder(text).Decode(answer); err != nil {
		return fmt.Errorf("%s: the answer is none of asidehttp: check the path", oneLine(a.url))
	}
	return nil
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// maxUpstreamAnswer bounds the answer of one upstream, in bytes.
const maxUpstreamAnswer = 64 << 20

// errUpstream is wrapped by every error of an upstream.
var errUpstream = errors.New("upstream")

// modelSource loads models from the upstreams. Its results are encoded JSON. The cache stores these bytes, and the handler serves them, so a hit on a
// catalogue of 20 MB decodes and encodes nothing.
type modelSource struct {
	client   *http.Client
	calls    *calls
	log      *slog.Logger
	gateways []string          // in the order of the joined list
	urls     map[string]string // of each gateway's server
	carrier  map[string]string // model id -> the gateway that carries it
}

func newModelSource(ups *upstreams, cat *catalogue, counter *calls, log *slog.Logger) *modelSource {
	src := &modelSource{
		// Each caller keeps one open connection to each upstream between rounds. Compression would only cost time on loopback.
		client:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8, DisableCompression: true}},
		calls:    counter,
		log:      log,
		gateways: cat.gateways,
		urls:     make(map[string]string, len(ups.servers)),
		carrier:  make(map[string]string, cat.count),
	}
	for _, up := range ups.servers {
		src.urls[up.gateway] = up.url
		for id := range up.models {
			src.carrier[id] = up.gateway
		}
	}
	return src
}

// close ends the idle connections to the upstreams.
func (src *modelSource) close() { src.client.CloseIdleConnections() }

// all requests the lists of all gateways concurrently, and joins them. It takes as long as the slowest gateway. A gateway that fails is logged, left
// out of the result, and named in missing. all fails only if every gateway fails.
func (src *modelSource) all(ctx context.Context) (body []byte, missing []string, err error) {
	src.calls.add(opModelsAll)
	lists := make([]json.RawMessage, len(src.gateways))
	errs := make([]error, len(src.gateways))
	var asked sync.WaitGroup
	for i, gateway := range src.gateways {
		asked.Go(func() { lists[i], errs[i] = src.list(ctx, gateway) })
	}
	asked.Wait()
	if err := ctx.Err(); err != nil {
		return nil, nil, err // the caller's context has ended: no upstream has failed
	}
	present := lists[:0]
	for i, gateway := range src.gateways {
		if errs[i] != nil {
			src.log.Warn("upstream left out of the catalogue", "gateway", gateway, "error", errs[i])
			missing = append(missing, gateway)
			continue
		}
		present = append(present, lists[i])
	}
	if len(present) == 0 {
		return nil, nil, fmt.Errorf("all gateways failed: %w", errors.Join(errs...))
	}
	return joinLists("all", missing, present), missing, nil
}

// gateway loads the models of one gateway.
func (src *modelSource) gateway(ctx context.Context, name string) ([]byte, error) {
	src.calls.add(opModelsGateway)
	list, err := src.list(ctx, name)
	if err != nil {
		return nil, err
	}
	return joinLists(name, nil, []json.RawMessage{list}), nil
}

// model loads one model from the gateway that carries it.
func (src *modelSource) model(ctx context.Context, id string) ([]byte, error) {
	src.calls.add(opModelDetail)
	return src.get(ctx, src.carrier[id], "/models/"+escapePath(id))
}

func (src *modelSource) list(ctx context.Context, gateway string) (json.RawMessage, error) {
	body, err := src.get(ctx, gateway, "/models")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errUpstream, gateway, err)
	}
	if !bytes.HasPrefix(answer.Data, []byte("[")) {
		return nil, fmt.Errorf("%w: %s: the answer holds no list of models", errUpstream, gateway)
	}
	return answer.Data, nil
}

func (src *modelSource) get(ctx context.Context, gateway, path string) ([]byte, error) {
	body, err := src.fetch(ctx, src.urls[gateway]+path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errUpstream, gateway, err)
	}
	return body, nil
}

func (src *modelSource) fetch(ctx context.Context, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := src.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", address, response.Status)
	}
	if response.ContentLength > maxUpstreamAnswer {
		return nil, fmt.Errorf("the answer is too long: %d bytes", response.ContentLength)
	}
	var body bytes.Buffer
	body.Grow(int(max(0, response.ContentLength)) + bytes.MinRead)
	n, err := body.ReadFrom(io.LimitReader(response.Body, maxUpstreamAnswer+1))
	if err != nil {
		return nil, err
	}
	if n > maxUpstreamAnswer {
		return nil, errors.New("the answer is too long")
	}
	return body.Bytes(), nil
}

// joinLists joins the lists of one or more gateways to one answer. The lists are valid JSON arrays, so only their brackets change.
func joinLists(gateway string, missing []string, lists []json.RawMessage) []byte {
	size := 128
	for _, list := range lists {
		size += len(list)
	}
	body := bytes.NewBuffer(make([]byte, 0, size))
	head, err := json.Marshal(struct {
		Object  string   `json:"object"`
		Gateway string   `json:"gateway"`
		Missing []string `json:"missing,omitempty"`
	}{"list", gateway, missing})
	if err != nil {
		panic(err) // strings always encode
	}
	body.Write(head[:len(head)-1])
	body.WriteString(`,"data":[`)
	first := true
	for _, list := range lists {
		inner := bytes.TrimSpace(list)
		inner = bytes.TrimSpace(inner[1 : len(inner)-1])
		if len(inner) == 0 {
			continue
		}
		if !first {
			body.WriteByte(',')
		}
		first = false
		body.Write(inner)
	}
	body.WriteString("]}")
	return body.Bytes()
}

// escapePath escapes a model's id for a URL path. It keeps slashes.
func escapePath(id string) string {
	parts := strings.Split(id, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/")
}

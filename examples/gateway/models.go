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

// errNotModified says that the upstreams have nothing newer than the version that the caller knows.
var errNotModified = errors.New("not modified")

// longestETag bounds the ETags of upstreams that are used, in bytes. The cache stores no longer ones.
const longestETag = 1 << 10

// A version is what the upstreams have at a time: models as encoded JSON, and what the upstreams call them.
type version struct {
	body []byte
	etag string // empty if an upstream gives none
}

// modelSource loads models from the upstreams. Its results are JSON. The cache stores them compressed, and the handler serves these bytes, so a hit on
// a catalogue of 20 MB decodes and encodes nothing. Callers give it the ETag of the version that they know, or none. If that is still right, they get
// errNotModified.
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
		for id := range up.carried.Load().models {
			src.carrier[id] = up.gateway
		}
	}
	return src
}

// close ends the idle connections to the upstreams.
func (src *modelSource) close() { src.client.CloseIdleConnections() }

// all requests the lists of all gateways concurrently, and joins them. It takes as long as the slowest gateway. A gateway that fails is logged, left
// out of the result, and named in missing. all fails only if every gateway fails.
//
// The joined list has an ETag of its own, made of those of its parts. To join the lists takes all of them, so each is transferred, also if only
// another one has changed. But if none has, the joined list is neither made nor stored again.
func (src *modelSource) all(ctx context.Context, known string) (v version, missing []string, err error) {
	src.calls.add(opModelsAll)
	lists := make([]version, len(src.gateways))
	errs := make([]error, len(src.gateways))
	var asked sync.WaitGroup
	for i, gateway := range src.gateways {
		asked.Go(func() { lists[i], errs[i] = src.list(ctx, gateway, "") })
	}
	asked.Wait()
	if err := ctx.Err(); err != nil {
		return version{}, nil, err // the caller's context has ended: no upstream has failed
	}
	var present []json.RawMessage
	var parts [][]byte // the gateways that are present, with their ETags
	named := true
	for i, gateway := range src.gateways {
		if errs[i] != nil {
			src.log.Warn("upstream left out of the catalogue", "gateway", gateway, "error", errs[i])
			missing = append(missing, gateway)
			continue
		}
		present = append(present, lists[i].body)
		parts = append(parts, []byte(gateway), []byte(lists[i].etag))
		named = named && lists[i].etag != ""
	}
	if len(present) == 0 {
		return version{}, nil, fmt.Errorf("all gateways failed: %w", errors.Join(errs...))
	}
	if named {
		if v.etag = etagOf(parts...); v.etag == known {
			return version{}, missing, errNotModified
		}
	}
	v.body = joinLists("all", missing, present)
	return v, missing, nil
}

// gateway loads the models of one gateway.
func (src *modelSource) gateway(ctx context.Context, name, known string) (version, error) {
	src.calls.add(opModelsGateway)
	list, err := src.list(ctx, name, known)
	if err != nil {
		return version{}, err
	}
	return version{joinLists(name, nil, []json.RawMessage{list.body}), list.etag}, nil
}

// model loads one model from the gateway that carries it.
func (src *modelSource) model(ctx context.Context, id, known string) (version, error) {
	src.calls.add(opModelDetail)
	return src.get(ctx, src.carrier[id], "/models/"+escapePath(id), known)
}

func (src *modelSource) list(ctx context.Context, gateway, known string) (version, error) {
	v, err := src.get(ctx, gateway, "/models", known)
	if err != nil {
		return version{}, err
	}
	var answer struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(v.body, &answer); err != nil {
		return version{}, fmt.Errorf("%w: %s: %w", errUpstream, gateway, err)
	}
	if !bytes.HasPrefix(answer.Data, []byte("[")) {
		return version{}, fmt.Errorf("%w: %s: the answer holds no list of models", errUpstream, gateway)
	}
	return version{answer.Data, v.etag}, nil
}

func (src *modelSource) get(ctx context.Context, gateway, path, known string) (version, error) {
	v, err := src.fetch(ctx, src.urls[gateway]+path, known)
	if err != nil && !errors.Is(err, errNotModified) {
		err = fmt.Errorf("%w: %s: %w", errUpstream, gateway, err)
	}
	return v, err
}

func (src *modelSource) fetch(ctx context.Context, address, known string) (v version, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return version{}, err
	}
	if known != "" {
		request.Header.Set("If-None-Match", known)
	}
	response, err := src.client.Do(request)
	if err != nil {
		return version{}, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotModified && known != "" {
		return version{}, errNotModified
	}
	if response.StatusCode != http.StatusOK {
		return version{}, fmt.Errorf("GET %s: %s", address, response.Status)
	}
	if response.ContentLength > maxUpstreamAnswer {
		return version{}, fmt.Errorf("the answer is too long: %d bytes", response.ContentLength)
	}
	var body bytes.Buffer
	body.Grow(int(max(0, response.ContentLength)) + bytes.MinRead)
	n, err := body.ReadFrom(io.LimitReader(response.Body, maxUpstreamAnswer+1))
	if err != nil {
		return version{}, err
	}
	if n > maxUpstreamAnswer {
		return version{}, errors.New("the answer is too long")
	}
	v.body = body.Bytes()
	if etag := response.Header.Get("ETag"); len(etag) <= longestETag {
		v.etag = etag
	}
	return v, nil
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

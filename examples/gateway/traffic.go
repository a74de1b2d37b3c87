package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// call is one request of the report.
type call struct {
	op     op
	path   string
	apiKey string // empty for public requests
	body   string // of a POST
	name   string // the gateway or the model of a public request
}

// visit is a sequence of calls of one user.
type visit []call

// The distribution of the traffic. A few users, sessions and models get most of the requests: the k-th most popular item is requested in proportion
// to 1/k^skew (Zipf).
const (
	userSkew    = 1.1
	sessionSkew = 1.6 // over the user's own sessions, latest first
	gatewaySkew = 1.2
	modelSkew   = 1.5
	wordSkew    = 1.8 // over the words of searches
	visitLength = 30  // mean number of requests
	staying     = 0.6 // share of session requests that repeat the last session
)

// planner draws random visits.
type planner struct {
	rnd      *rand.Rand
	gateways []string
	models   []model
	users    []userSessions

	nextUser, nextGateway, nextModel, nextWord func() int   // draw an index; low indexes are more likely
	nextSession                                []func() int // of each user's sessions
}

// planTraffic draws visits with n requests in total. The same seed makes the same visits. The first visit has one request of each op, so that no line
// of the table is empty.
func planTraffic(ctx context.Context, b *backend, n int, seed uint64) ([]visit, error) {
	users, err := b.store.sessionIDs(ctx)
	if err != nil {
		return nil, fmt.Errorf("plan the traffic: %w", err)
	}
	p := &planner{rnd: rand.New(rand.NewPCG(seed, 4)), gateways: b.catalogue.gateways, users: users}
	for _, gateway := range p.gateways {
		p.models = append(p.models, b.catalogue.models[gateway]...)
	}
	// Popularity is independent of the alphabetical order.
	p.rnd.Shuffle(len(p.models), func(i, j int) { p.models[i], p.models[j] = p.models[j], p.models[i] })
	p.nextUser = p.zipf(userSkew, len(p.users))
	p.nextGateway = p.zipf(gatewaySkew, len(p.gateways))
	p.nextModel = p.zipf(modelSkew, len(p.models))
	p.nextWord = p.zipf(wordSkew, len(vocabulary))
	for _, user := range p.users {
		p.nextSession = append(p.nextSession, p.zipf(sessionSkew, len(user.ids)))
	}

	var kinds []op
	for o := range numOps {
		kinds = append(kinds, o)
	}
	plan := []visit{p.visit(kinds)}
	for left := n - len(kinds); left > 0; {
		kinds = kinds[:0]
		for range min(left, 1+int(p.rnd.ExpFloat64()*visitLength)) {
			kinds = append(kinds, p.op())
		}
		left -= len(kinds)
		plan = append(plan, p.visit(kinds))
	}
	return plan, nil
}

// requests counts the requests of all visits.
func requests(plan []visit) (n int) {
	for _, v := range plan {
		n += len(v)
	}
	return n
}

func (p *planner) zipf(skew float64, n int) func() int {
	z := rand.NewZipf(p.rnd, skew, 1, uint64(n-1))
	return func() int { return int(z.Uint64()) }
}

// op draws an op from the mix.
func (p *planner) op() op {
	total := 0
	for _, kind := range mix {
		total += kind.weight
	}
	at := p.rnd.IntN(total)
	o := op(0)
	for ; at >= mix[o].weight; o++ {
		at -= mix[o].weight
	}
	return o
}

// visit draws a user, and returns that user's calls for the given ops.
func (p *planner) visit(kinds []op) visit {
	i := p.nextUser()
	user, session := p.users[i], p.nextSession[i]
	open := user.ids[session()]
	v := make(visit, 0, len(kinds))
	for _, o := range kinds {
		if o == opSession && p.rnd.Float64() >= staying {
			open = user.ids[session()]
		}
		v = append(v, p.call(o, demoKey(int(user.user)), open))
	}
	return v
}

// call returns one request. Public requests use neither the API key nor the session.
func (p *planner) call(o op, apiKey string, session int64) call {
	c := call{op: o}
	switch o {
	case opModelsAll:
		c.path = "/api/models?gateway=all"
	case opModelsGateway:
		c.name = p.gateways[p.nextGateway()]
		c.path = "/api/models?gateway=" + url.QueryEscape(c.name)
	case opModelDetail:
		c.name = p.models[p.nextModel()].ID
		c.path = "/api/models/" + escapePath(c.name)
	case opRankModels:
		c.path = "/api/ranking/models"
	case opRankApps:
		c.path = "/api/ranking/apps"
	case opSessionList:
		c.path = "/api/chat/sessions?limit=50&offset=0"
	case opSession:
		c.path = fmt.Sprintf("/api/chat/sessions/%d", session)
	case opMessage:
		c.path = fmt.Sprintf("/api/chat/sessions/%d/messages", session)
		c.body = `{"content":"What does the cache do when the origin is slow?"}`
	case opSearch:
		c.path = "/api/chat/search?q=" + vocabulary[p.nextWord()]
	case opProfile:
		c.path = "/api/user/me"
	case opCredits:
		c.path = "/api/user/credits"
	case opChatStats:
		c.path = "/api/chat/stats"
	case opActivity:
		c.path = "/api/user/activity/stats"
	}
	if mix[o].area != areaModels && mix[o].area != areaRankings {
		c.apiKey = apiKey
	}
	return c
}

// drive sends the visits with the given number of concurrent callers, in order and without pauses. It returns after the first answer that is not a
// success.
func drive(ctx context.Context, base string, plan []visit, callers int, done *atomic.Int64) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	transport := &http.Transport{MaxIdleConnsPerHost: callers, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 2 * time.Minute}
	var next atomic.Int64
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			buffer := make([]byte, 256<<10) // large, so that a catalogue takes few reads, for which the server waits
			for i := next.Add(1) - 1; i < int64(len(plan)); i = next.Add(1) - 1 {
				for _, c := range plan[i] {
					if err := c.send(ctx, client, base, buffer); err != nil {
						stop(err)
						return
					}
					done.Add(1)
				}
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

func (c call) send(ctx context.Context, client *http.Client, base string, buffer []byte) error {
	method, body := http.MethodGet, io.Reader(nil)
	if c.body != "" {
		method, body = http.MethodPost, strings.NewReader(c.body)
	}
	r, err := http.NewRequestWithContext(ctx, method, base+c.path, body)
	if err != nil {
		return err
	}
	if c.apiKey != "" {
		r.Header.Set("Authorization", "Bearer "+c.apiKey)
	}
	r.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd") // as a browser's. The answer is not decoded: the server is measured
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusMultipleChoices {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 300)) // best effort: the status is in the error anyway
		return fmt.Errorf("%s %s: %s %s", method, c.path, response.Status, text)
	}
	for {
		if _, err := response.Body.Read(buffer); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s %s: %w", method, c.path, err)
		}
	}
}

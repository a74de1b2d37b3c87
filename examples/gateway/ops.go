package main

import (
	"sync/atomic"
	"time"
)

// op is a kind of request. Requests, cache outcomes and backend calls are counted for each op.
type op int

const (
	opModelsAll op = iota
	opModelsGateway
	opModelDetail
	opSessionList
	opSession
	opSearch
	opProfile
	opCredits
	opChatStats
	opActivity
	opRankModels
	opRankApps
	opMessage // a write, followed by an invalidation
	numOps
)

// area is a line of the report's table.
type area string

const (
	areaModels   area = "models"
	areaSessions area = "sessions"
	areaProfiles area = "profiles"
	areaStats    area = "stats"
	areaActivity area = "activity"
	areaRankings area = "rankings"
	areaWrites   area = "writes"
)

// mix is the traffic of the report: the weight of each op in 1,000 requests. It is the traffic of a chat front end. Most requests are for models and
// sessions, each page shows the profile and the credits, a few requests are for rankings, and one request in a hundred is a new message.
var mix = [numOps]struct {
	name   string
	area   area
	weight int
}{
	opModelsAll:     {"gateway=all", areaModels, 20},
	opModelsGateway: {"one gateway", areaModels, 190},
	opModelDetail:   {"one model", areaModels, 50},
	opSessionList:   {"list", areaSessions, 150},
	opSession:       {"one session", areaSessions, 150},
	opSearch:        {"search", areaSessions, 20},
	opProfile:       {"me", areaProfiles, 150},
	opCredits:       {"credits", areaProfiles, 90},
	opChatStats:     {"chat stats", areaStats, 40},
	opActivity:      {"activity", areaActivity, 40},
	opRankModels:    {"models", areaRankings, 55},
	opRankApps:      {"apps", areaRankings, 35},
	opMessage:       {"new message", areaWrites, 10},
}

// target has the required figures of an area.
type target struct {
	area    area
	hitRate float64       // the minimum hit rate
	hitTime time.Duration // the upper bound of the median time of a hit, at the server
	saved   float64       // the minimum share of saved backend calls
	savedTo float64       // the upper end of the expected range, for the table
	loads   string        // the time of an answer without a cache, for the table; empty if unknown
}

// targets are the figures that the report checks. The report fails if one of them is missed.
var targets = []target{
	{areaModels, 0.95, 50 * time.Millisecond, 0.60, 0.80, "5-30 s"},
	{areaSessions, 0.80, 100 * time.Millisecond, 0.70, 0.85, ""},
	{areaProfiles, 0.85, 20 * time.Millisecond, 0.80, 0.90, ""},
	{areaRankings, 0.90, 200 * time.Millisecond, 0.85, 0.95, ""},
}

// overallSaved is the share of all backend calls that the cache must save.
const overallSaved = 0.60

// calls counts backend calls: each database query, and each round of requests to the upstreams, to one of them or to all concurrently.
type calls [numOps]atomic.Int64

func (c *calls) add(o op) { c[o].Add(1) }

func (c *calls) snapshot() (n [numOps]int64) {
	for o := range n {
		n[o] = c[o].Load()
	}
	return n
}

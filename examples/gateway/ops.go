package main

import (
	"sync/atomic"
	"time"
)

// op is one thing that a client of the server asks for. Every request, cache
// outcome and backend call is counted under one.
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
	opMessage // a write: it invalidates
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

// mix is the traffic of the report: of 1,000 requests, how many ask for what.
// It is that of a chat front end: pages of models and sessions most of all,
// the profile and the credits on every page's head, a ranking now and then,
// and one new message for every hundred reads.
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

// target is what the design asks of an area.
type target struct {
	area    area
	hitRate float64       // at least
	hitTime time.Duration // the median of a hit at the server stays under this
	saved   float64       // at least this part of the backend's calls
	savedTo float64       // the upper end of the range that the design gives
	loads   string        // what an answer costs without a cache, where the design says
}

// targets are the figures of section 8 of the design.
var targets = []target{
	{areaModels, 0.95, 50 * time.Millisecond, 0.60, 0.80, "5-30 s"},
	{areaSessions, 0.80, 100 * time.Millisecond, 0.70, 0.85, ""},
	{areaProfiles, 0.85, 20 * time.Millisecond, 0.80, 0.90, ""},
	{areaRankings, 0.90, 200 * time.Millisecond, 0.85, 0.95, ""},
}

// overallSaved is the part of all backend calls that the cache has to save.
const overallSaved = 0.60

// calls counts the backend's work: every query of the database and every
// round to the upstreams, whether it asks one of them or all at once.
type calls [numOps]atomic.Int64

func (c *calls) add(o op) { c[o].Add(1) }

func (c *calls) snapshot() (n [numOps]int64) {
	for o := range n {
		n[o] = c[o].Load()
	}
	return n
}

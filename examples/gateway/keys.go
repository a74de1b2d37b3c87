package main

import (
	"time"

	"github.com/gatewayz/aside"
)

// This file has every policy of the server and every cache key. The keys of a user contain a hash of the user's API key: two users never share a
// cache key, and no cache key shows an API key.

// policySet has the policies of a server. Keys point to their policy, so a policySet is not copied or changed once it is used.
type policySet struct {
	modelsAll, modelsGateway, modelDetail      aside.Policy
	sessionsList, sessionDetail, searchResults aside.Policy
	chatStats, activityStats                   aside.Policy
	userProfile, userCredits                   aside.Policy
	rankingsModels, rankingsApps               aside.Policy
}

// newPolicies returns the policies of the table aside.TTL, with strategies for the values that may be served past their TTL, or that take long to
// load.
func newPolicies() *policySet {
	p := &policySet{
		modelsAll: aside.TTL.ModelsAll, modelsGateway: aside.TTL.ModelsGateway, modelDetail: aside.TTL.ModelDetail,
		sessionsList: aside.TTL.SessionsList, sessionDetail: aside.TTL.SessionDetail, searchResults: aside.TTL.SearchResults,
		chatStats: aside.TTL.ChatStats, activityStats: aside.TTL.ActivityStats,
		userProfile: aside.TTL.UserProfile, userCredits: aside.TTL.UserCredits,
		rankingsModels: aside.TTL.RankingsModels, rankingsApps: aside.TTL.RankingsApps,
	}
	// Upstreams take 5 to 30 s, and each of them fails now and then. A catalogue of the last hour is as good as a new one: nobody waits while it is
	// refreshed. Where the upstreams fail, a catalogue of yesterday is better than none. A caller that comes after the hour of Stale waits for the
	// upstreams, but only for SoftTimeout (1 s). A load asks by the ETag of the old catalogue whether that is still right, which needs one of the two.
	for _, catalogue := range []*aside.Policy{&p.modelsAll, &p.modelsGateway, &p.modelDetail} {
		catalogue.Stale, catalogue.StaleIfError = time.Hour, 24*time.Hour
	}
	// The rankings read every event, and are asked for all the time. They are refreshed before their TTL ends, so that nobody waits, and nobody gets
	// a ranking that is older than its TTL.
	for _, ranking := range []*aside.Policy{&p.rankingsModels, &p.rankingsApps} {
		ranking.RefreshAhead = 0.1
	}
	// Credits are fresh only. An old balance lets a user spend what is spent already, or refuses what the user has just bought. So a call past the
	// TTL waits for the database, and fails if the database fails. Negative: also if Options.Stale is set one day.
	p.userCredits.Stale, p.userCredits.StaleIfError, p.userCredits.RefreshAhead = -1, -1, -1
	return p
}

func (p *policySet) all() []*aside.Policy {
	return []*aside.Policy{
		&p.modelsAll, &p.modelsGateway, &p.modelDetail, &p.sessionsList, &p.sessionDetail, &p.searchResults,
		&p.chatStats, &p.activityStats, &p.userProfile, &p.userCredits, &p.rankingsModels, &p.rankingsApps,
	}
}

// list returns all policies of the server, for Options.Policies. The cache then knows their categories before their first use, and operators can
// invalidate by category from the start.
func (p *policySet) list() (list []aside.Policy) {
	for _, policy := range p.all() {
		list = append(list, *policy)
	}
	return list
}

// compressed divides all times by a factor, for a report in which values expire. It returns p.
func (p *policySet) compressed(factor float64) *policySet {
	for _, policy := range p.all() {
		for _, d := range []*time.Duration{&policy.TTL, &policy.Stale, &policy.StaleIfError} {
			if *d > 0 {
				*d = time.Duration(float64(*d) / factor)
			}
		}
	}
	return p
}

// ttlAlone removes the strategies. It returns p.
func (p *policySet) ttlAlone() *policySet {
	for _, policy := range p.all() {
		policy.Stale, policy.StaleIfError, policy.RefreshAhead = 0, 0, 0
	}
	return p
}

// modelsKey is the key of the catalogue of one gateway, or of "all".
func (p *policySet) modelsKey(gateway string) aside.Key {
	if gateway == "all" {
		return p.modelsAll.Key("all", "all")
	}
	return p.modelsGateway.Key(gateway, "all")
}

func (p *policySet) modelKey(id string) aside.Key { return p.modelDetail.Key(id, "detail") }

func (p *policySet) rankModelsKey() aside.Key { return p.rankingsModels.Key("models", "all") }

func (p *policySet) rankAppsKey() aside.Key { return p.rankingsApps.Key("apps", "all") }

func (p *policySet) listKey(hash string, limit, offset int64) aside.Key {
	return p.sessionsList.Key(hash, "list", limit, offset)
}

func (p *policySet) sessionKey(hash string, id int64) aside.Key {
	return p.sessionDetail.Key(hash, id, "full")
}

func (p *policySet) olderKey(hash string, id, before int64) aside.Key {
	return p.sessionDetail.Key(hash, id, "before", before)
}

func (p *policySet) searchKey(hash, text string) aside.Key {
	return p.searchResults.Key(hash, "search", text)
}

func (p *policySet) chatStatsKey(hash string) aside.Key { return p.chatStats.Key(hash) }

func (p *policySet) profileKey(hash string) aside.Key { return p.userProfile.Key(hash, "profile") }

func (p *policySet) creditsKey(hash string) aside.Key { return p.userCredits.Key(hash, "credits") }

func (p *policySet) activityKey(hash, period string) aside.Key {
	return p.activityStats.Key(hash, "stats", period)
}

package main

import "github.com/gatewayz/aside"

// This file has every cache key of the server, with its policy. The keys of a user contain a hash of the user's API key: two users never share a
// cache key, and no cache key shows an API key.

// policies returns all policies of the server, for Options.Policies. The cache then knows their categories before their first use, and operators can
// invalidate by category from the start.
func policies() []aside.Policy {
	return []aside.Policy{
		aside.TTL.ModelsAll, aside.TTL.ModelsGateway, aside.TTL.ModelDetail, aside.TTL.SessionsList,
		aside.TTL.SessionDetail, aside.TTL.SearchResults, aside.TTL.ChatStats, aside.TTL.UserProfile,
		aside.TTL.UserCredits, aside.TTL.ActivityStats, aside.TTL.RankingsModels, aside.TTL.RankingsApps,
	}
}

// modelsKey is the key of the catalogue of one gateway, or of "all".
func modelsKey(gateway string) aside.Key {
	if gateway == "all" {
		return aside.TTL.ModelsAll.Key("all", "all")
	}
	return aside.TTL.ModelsGateway.Key(gateway, "all")
}

func modelKey(id string) aside.Key { return aside.TTL.ModelDetail.Key(id, "detail") }

func rankModelsKey() aside.Key { return aside.TTL.RankingsModels.Key("models", "all") }

func rankAppsKey() aside.Key { return aside.TTL.RankingsApps.Key("apps", "all") }

func listKey(hash string, limit, offset int64) aside.Key {
	return aside.TTL.SessionsList.Key(hash, "list", limit, offset)
}

func sessionKey(hash string, id int64) aside.Key {
	return aside.TTL.SessionDetail.Key(hash, id, "full")
}

func olderKey(hash string, id, before int64) aside.Key {
	return aside.TTL.SessionDetail.Key(hash, id, "before", before)
}

func searchKey(hash, text string) aside.Key {
	return aside.TTL.SearchResults.Key(hash, "search", text)
}

func chatStatsKey(hash string) aside.Key { return aside.TTL.ChatStats.Key(hash) }

func profileKey(hash string) aside.Key { return aside.TTL.UserProfile.Key(hash, "profile") }

func creditsKey(hash string) aside.Key { return aside.TTL.UserCredits.Key(hash, "credits") }

func activityKey(hash, period string) aside.Key {
	return aside.TTL.ActivityStats.Key(hash, "stats", period)
}

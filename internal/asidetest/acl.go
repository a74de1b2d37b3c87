package asidetest

import (
	"regexp"
	"strings"
)

// ACLRules are those that docs/redis.md says a user needs, for the categories of these tests.
func ACLRules(password string, categories ...string) (rules []string) {
	text, err := page("docs/redis.md")
	if err != nil {
		panic(err)
	}
	found := regexp.MustCompile(`(?s)ACL SETUSER aside (.*?)\n\n`).FindStringSubmatch(text)
	for _, rule := range strings.Fields(found[1]) {
		switch {
		case strings.Contains(rule, "models"):
			for _, category := range categories {
				rules = append(rules, strings.ReplaceAll(rule, "models", category))
			}
		case !strings.Contains(rule, "user"):
			rules = append(rules, strings.ReplaceAll(rule, "PASSWORD", password))
		}
	}
	return rules
}

// allCategories are those that the tests use where there is a server.
func allCategories() []string {
	all := []string{
		"a", "activity", "brief", "briefly", "brieflystale", "c", "caused", "cbor", "changed", "codecs", "compared", "credits", "ended", "endless", "extreme", "f", "failing", "hanging", "items",
		"j", "json", "k", "kept", "late", "limits", "lists", "m", "memoryalone", "memoryerror", "memorystale", "mixed", "models", "never", "others", "packed", "past", "percall", "private",
		"quick", "rankings", "redisalone", "sessions", "shoppers", "short", "shortened", "slow", "stale", "stats", "tenants", "things", "traced", "unused", "user", "users", "versions", "widths",
	}
	for lane := range 64 {
		all = append(all, LanePolicy(lane).Category)
	}
	return all
}

package asidehttp

import (
	"context"
	"slices"

	"github.com/gatewayz/aside"
)

// keys is the part of a response that lists the cached keys of a pattern.
type keys struct {
	TotalKeys int64    `json:"total_keys"`
	Pattern   string   `json:"pattern"`
	Keys      []string `json:"keys"`
	Complete  bool     `json:"complete"`
	Error     string   `json:"error,omitempty"`
}

// list lists the first keys of a pattern, and counts all of them.
func (h *handler) list(ctx context.Context, who visitor, pattern aside.Pattern) *keys {
	const most = 100
	list := &keys{Pattern: pattern.String(), Keys: []string{}} // [] in JSON, and not null
	waiting, cancel := context.WithTimeout(ctx, defaultWait)
	defer cancel()
	err := h.count(ctx, waiting, who, pattern, func(info aside.KeyInfo) bool {
		if len(list.Keys) < most && !slices.Contains(list.Keys, info.Key) {
			list.Keys = append(list.Keys, info.Key)
		}
		return true
	}, &list.TotalKeys)
	slices.Sort(list.Keys)
	if list.Complete = err == nil; err != nil {
		list.Error = message(err)
	}
	return list
}

// count adds to n the cached entries of a pattern for which counts returns true, until ctx or its turn ends. It waits for its turn until waiting
// ends.
func (h *handler) count(ctx, waiting context.Context, who visitor, pattern aside.Pattern, counts func(aside.KeyInfo) bool, n *int64) error {
	return h.scan(ctx, waiting, who, pattern, func(info aside.KeyInfo) bool {
		if counts(info) {
			*n++
		}
		return true
	})
}

// scan calls each for the cached entries of a pattern, until it returns false, or ctx or the turn ends. It waits for its turn until waiting ends.
func (h *handler) scan(ctx, waiting context.Context, who visitor, pattern aside.Pattern, each func(aside.KeyInfo) bool) error {
	end, err := h.turns.take(waiting, who.sum)
	if err != nil {
		return errNoTurn
	}
	defer end()
	ctx, cancel := context.WithTimeout(ctx, mostOfATurn)
	defer cancel()
	for info, err := range h.cache.Keys(ctx, pattern) {
		if ctx.Err() != nil {
			return errTurnOver
		}
		if err != nil {
			return err
		}
		if !each(info) {
			return nil
		}
	}
	return nil
}

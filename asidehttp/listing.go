package asidehttp

import (
	"context"
	"slices"

	"github.com/gatewayz/aside"
)

// keys are the cached keys that match a pattern.
type keys struct {
	TotalKeys int64    `json:"total_keys"`
	Pattern   string   `json:"pattern"`
	Keys      []string `json:"keys"`
	Complete  bool     `json:"complete"`
	Error     string   `json:"error,omitempty"`
}

func (h *handler) list(ctx context.Context, who visitor, pattern aside.Pattern) *keys {
	const most = 100
	list := &keys{Pattern: pattern.String(), Keys: []string{}} // [] and not null
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

// count counts the cached entries of a pattern until ctx or its turn ends. It waits for its turn until waiting ends.
func (h *handler) count(ctx, waiting context.Context, who visitor, pattern aside.Pattern, counts func(aside.KeyInfo) bool, n *int64) error {
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
		if counts(info) {
			*n++
		}
	}
	return nil
}

package engine

import (
	"context"
	"reflect"
	"slices"

	"github.com/gatewayz/aside/internal/freshness"
	"github.com/gatewayz/aside/internal/inspect"
	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
)

// Verdicts on what is in memory, and on what Redis has, beside those of package inspect. The root package has a constant with the same text for each.
const (
	Unconfirmed inspect.Verdict = "redis cannot confirm the value"
	Replaced    inspect.Verdict = "changed or invalidated"
	Quarantined inspect.Verdict = ReasonUnconfirmed
)

// A Held is what memory has for a key.
type Held struct {
	Entry   *near.Entry // nil: nothing
	Policy  *Policy
	Verdict inspect.Verdict
	Type    string // of the value; empty for "not found"
}

// Held returns what memory has for a key, also where it may not be served. It is no use of the value, which is not read.
func (e *Engine) Held(key string) Held {
	entry, standing := e.Near.Find(key)
	if entry == nil {
		return Held{Verdict: inspect.NotCached}
	}
	h := Held{Entry: entry, Policy: entry.Scope.Owner.(Holder).Resolved(), Verdict: inspect.Served}
	switch phase := entry.Times().At(e.Clock.Now()); {
	case standing == near.Outdated:
		h.Verdict = Replaced
	case phase == freshness.Dead:
		h.Verdict = inspect.Expired
	case standing == near.Lapsed:
		h.Verdict = Unconfirmed
	case phase >= freshness.Stale:
		h.Verdict = inspect.Stale
	}
	if typ := typeOf(entry.Value); typ != nil {
		h.Type = typ.String()
	}
	return h
}

// typeOf is the type of a value in memory, nil for "not found".
func typeOf(value any) reflect.Type {
	switch v := value.(type) {
	case nil, *absence:
		return nil
	case *encoded:
		return v.typ
	}
	return reflect.TypeOf(value).Elem()
}

// Encode encodes the value that memory has, as Redis would hold it: a program without Redis has no other form to look at.
func (h *Held) Encode(e *Engine) (payload []byte, err error) {
	a := newAttempt(Request{Policy: h.Policy, Type: typeOf(h.Entry.Value)})
	a.out.setCached(h.Entry.Value)
	payload, _, err = a.encode(e.limits())
	return payload, err
}

// Inspect reads what Redis has for a key, in the time that calls have for one operation.
func (e *Engine) Inspect(ctx context.Context, key string) (inspect.Entry, error) {
	e.AwaitServers(ctx)
	found, err := inspect.Read(ctx, inspected{e.Store}, key, e.named(key), e.limits())
	if err == nil && (found.Verdict == inspect.Served || found.Verdict == inspect.Stale) && e.unconfirmed(key, found.Tags) {
		found.Verdict = Quarantined
	}
	return found, err
}

// unconfirmed reports whether this process does not trust what Redis has.
func (e *Engine) unconfirmed(key string, tags []inspect.Tag) bool {
	return e.journal.Contains(key) || slices.ContainsFunc(tags, func(t inspect.Tag) bool { return e.journal.Contains(t.Name) })
}

// inspected is a store each of whose operations has a time limit of its own. How large a value is, is not known before.
type inspected struct{ *redisstore.Store }

func (s inspected) Get(ctx context.Context, looks ...redisstore.Get) []redisstore.Read {
	ctx, cancel := s.Budget(ctx, unknownSize, len(looks))
	defer cancel()
	return s.Store.Get(ctx, looks...)
}

func (s inspected) Chunks(ctx context.Context, key, nonce string, lengths []int) ([][]byte, bool, error) {
	size := int64(0)
	for _, n := range lengths {
		size += int64(n)
	}
	ctx, cancel := s.Budget(ctx, size, len(lengths))
	defer cancel()
	return s.Store.Chunks(ctx, key, nonce, lengths)
}

func (s inspected) Values(ctx context.Context, keys ...string) ([]string, error) {
	ctx, cancel := s.Budget(ctx, 0, len(keys))
	defer cancel()
	return s.Store.Values(ctx, keys...)
}

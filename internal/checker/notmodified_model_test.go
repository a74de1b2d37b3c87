package main

import (
	"context"
	"fmt"
	"time"

	"github.com/gatewayz/aside"
)

// What the model of strategies knows of values that are not modified: a load that finds that out makes a version of its own, which has the value
// of an earlier one. So an answer with a value is one of several versions. A Result tells which one by its age; of a call without a Result any of
// them will do.

// ownWindows are the windows of one value, by its call or its loader.
type ownWindows struct{ stale, onError time.Duration }

func (w *ownWindows) option() aside.CallOption { return aside.WithStale(w.stale, w.onError) }

// set notes with which windows a version is stored.
func (w *ownWindows) set(v *version) {
	if w != nil {
		v.stale, v.rest = w.stale, max(w.stale, w.onError)
	}
}

// An asker is the call that a load is of. The context of the load has it.
type asker struct {
	windows  *ownWindows
	replaces bool
}

type askerKey struct{}

func askerOf(ctx context.Context) asker {
	a, _ := ctx.Value(askerKey{}).(asker)
	return a
}

// An answer is what a call gives.
type answer struct {
	number int
	status aside.Status
	reason string
	age    time.Duration
	etag   string
	err    error
}

func answerOf(r aside.Result[int], err error) answer {
	return answer{r.Value, r.Status, r.Reason, r.Age, r.ETag, err}
}

// sameAs are the versions that have the value of a version, from the oldest on. It requires mu.
func (m *strategiesModel) sameAs(number int) []*version {
	list := []*version{m.versions[number]}
	for _, v := range m.versions[number+1:] {
		if v.over() && v.of == number && !v.failed { // what runs writes the rest without the lock
			list = append(list, v)
		}
	}
	return list
}

// find is the version with a value that began at a moment, nil if there is none. It requires mu.
func (m *strategiesModel) find(number int, began time.Time) *version {
	if number <= 0 || number >= len(m.versions) {
		return nil
	}
	for _, v := range m.sameAs(number) {
		if v.began.Equal(began) {
			return v
		}
	}
	return nil
}

// previous asks for the previous value of a load, and checks it.
func (m *strategiesModel) previous(ctx context.Context, v *version, inBatch bool) (prior *version) {
	var p aside.Prior[int]
	var ok bool
	if inBatch {
		p, ok = aside.PreviousOf[int](ctx, m.key(v.key))
	} else {
		p, ok = aside.Previous[int](ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !ok {
		m.counts["no previous value"]++
		return nil
	}
	m.counts["previous value"]++
	number, ok := p.Value()
	prior = m.find(number, p.LoadedAt)
	queued := m.setup.maxLoads < 10 // the load may have waited for a place, with what was the previous value when it came
	switch age := v.began.Sub(p.LoadedAt); {
	case !ok:
		m.complain("the previous value of version %d cannot be read", v.number)
	case prior == nil || prior.key != v.key || prior.absent:
		m.complain("the previous value of version %d is %d, loaded %v before: there is none", v.number, number, age)
	case prior.etag != p.ETag:
		m.complain("the previous value of version %d is version %d, its ETag %q, and not %q", v.number, prior.number, p.ETag, prior.etag)
	case !queued && age >= prior.ttl+prior.rest:
		m.complain("the previous value of version %d is version %d, %v old: it is dead", v.number, prior.number, age)
	case !queued && prior.number <= v.barrier:
		m.complain("the previous value of version %d is version %d, from before version %d, which was invalidated or replaced", v.number, prior.number, v.barrier)
	case askerOf(ctx).replaces:
		m.complain("a Refresh has a previous value, version %d", prior.number)
	}
	return prior
}

// keep makes v, whose load runs, a version with the value of prior.
func (v *version) keep(prior *version) {
	v.of = prior.number
	if prior.of != 0 {
		v.of = prior.of
	}
	if v.etag == "" {
		v.etag = prior.etag
	}
}

// countSame counts a load that says that its value is not modified. It requires mu.
func (m *strategiesModel) countSame(life *cacheLife, v *version, ctx context.Context) {
	switch {
	case v.of == 0 || v.failed:
	case ctx.Err() != nil:
		life.unsureSame++
	default:
		life.same++
		m.counts["not modified"]++
	}
}

// judgeVersion finds the version of an answer, and checks what a Result says of it. sure reports whether it can be only this one. It requires mu.
func (m *strategiesModel) judgeVersion(c *modelCall, a answer) (v *version, sure bool) {
	if a.number <= 0 || a.number >= len(m.versions) {
		m.complain("%s of key %d got %d, which was never loaded", c.what, c.key, a.number)
		return nil, false
	}
	list := m.sameAs(a.number)
	if a.status == unknown {
		return list[len(list)-1], len(list) == 1
	}
	v = m.find(a.number, time.Now().Add(-a.age))
	if v == nil {
		text := ""
		for _, v := range list {
			text += fmt.Sprintf(" %d, %v ago;", v.number, time.Since(v.began))
		}
		m.complain("%s of key %d got a value of version %d that is %v old. Its versions are%s", c.what, c.key, a.number, a.age, text)
		return nil, false
	}
	if v.etag != a.etag {
		m.complain("%s of key %d got version %d with ETag %q, and not %q", c.what, c.key, v.number, a.etag, v.etag)
	}
	if v.of != 0 {
		m.counts["answer not modified"]++
	}
	return v, true
}

package engine

import (
	"context"
	"errors"
	"slices"

	"github.com/gatewayz/aside/internal/near"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/tags"
	"github.com/gatewayz/aside/internal/wire"
)

// A shipment is what fill sends to Redis: values, and heads of values that are there already.
type shipment struct {
	of    []*attempt
	fills []redisstore.Filling
	heads []redisstore.Restamping
	isNew []bool // of those in of: a value, and not a head
	size  int64
	keys  int

	fences   []*near.Fence // of those in of, while they are stored
	underWay storing
	few      struct { // room for one, in one allocation
		of     [1]*attempt
		fills  [1]redisstore.Filling
		isNew  [1]bool
		fences [1]*near.Fence
		looks  [1]redisstore.Get
	}
}

func newShipment() *shipment {
	s := new(shipment)
	s.of, s.fills, s.isNew, s.fences = s.few.of[:0], s.few.fills[:0], s.few.isNew[:0], s.few.fences[:0]
	return s
}

func (s *shipment) endFences() {
	for _, f := range s.fences {
		f.End()
	}
}

// send stores the shipment, and reads the heads back under its fences.
func (s *shipment) send(ctx context.Context, store *redisstore.Store) (outcomes []redisstore.Outcome, reads []redisstore.Read, errs []error) {
	ofFills, ofHeads := s.few.looks[:0], []redisstore.Get(nil)
	for i, a := range s.of {
		look := redisstore.Get{Key: a.Key, Fence: s.fences[i], Head: wire.HeadLen}
		if s.isNew[i] {
			ofFills = append(ofFills, look)
		} else {
			ofHeads = append(ofHeads, look)
		}
	}
	outcomes, reads, errs = store.FillAndRead(ctx, s.fills, ofFills)
	if len(s.heads) == 0 {
		return outcomes, reads, errs
	}
	restamped, restampedReads, restampedErrs := store.RestampAndRead(ctx, s.heads, ofHeads)
	for i, isNew := range s.isNew {
		if !isNew {
			outcomes, reads = slices.Insert(outcomes, i, restamped[0]), slices.Insert(reads, i, restampedReads[0])
			errs = slices.Insert(errs, i, restampedErrs[0])
			restamped, restampedReads, restampedErrs = restamped[1:], restampedReads[1:], restampedErrs[1:]
		}
	}
	return outcomes, reads, errs
}

// pack adds a's value to a shipment.
func (e *Engine) pack(m *tags.Snapshot, a *attempt, s *shipment) error {
	if a.NotModified && a.prior.head != nil {
		switch r, err := e.newRestamping(m, a); err {
		case nil:
			s.of, s.heads, s.isNew = append(s.of, a), append(s.heads, r), append(s.isNew, false)
			s.size, s.keys = s.size+int64(len(r.Head)), s.keys+1+r.Chunks
			return nil
		case errLongCopy: // it is stored as a whole
		default:
			return err
		}
	}
	f, err := e.newFilling(m, a)
	if err == nil {
		s.of, s.fills, s.isNew = append(s.of, a), append(s.fills, f), append(s.isNew, true)
		s.size, s.keys = s.size+f.Size(), s.keys+1+len(f.Chunks)
	}
	return err
}

// errOutdated is the error of newFilling for a value that was invalidated during the load, and of readChunks for one that was invalidated
// before.
var errOutdated = errors.New("invalidated during the load")

// newFilling makes the stored form of a loaded value, unless the value was invalidated during the load.
func (e *Engine) newFilling(m *tags.Snapshot, a *attempt) (f redisstore.Filling, err error) {
	payload, codec, err := a.encode(e.limits())
	if err == nil {
		err = e.settleTags(m, a)
	}
	if err == nil {
		f, err = e.sealEnvelope(a, payload, codec)
	}
	return f, e.storableYet(m, a, err)
}

// newRestamping makes what replaces the head of a value in Redis that is not modified, unless the value was invalidated during the load.
func (e *Engine) newRestamping(m *tags.Snapshot, a *attempt) (r redisstore.Restamping, err error) {
	if err = e.settleTags(m, a); err == nil {
		r, err = e.restampHead(a)
	}
	return r, e.storableYet(m, a, err)
}

// An unansweredError is the error of a Redis that did not answer for the tags of a value.
type unansweredError struct{ error }

// settleTags gives a the tags that its loader has named, and makes the generations of all its tags live long enough.
func (e *Engine) settleTags(m *tags.Snapshot, a *attempt) error {
	unmoved, err := true, error(nil)
	if len(a.lateNames) > 0 {
		ctx, cancel := e.Store.Budget(context.Background(), 0, len(a.lateNames)+1)
		unmoved, err = e.addLateTags(ctx, m, a)
		cancel()
		if isInvalid(err) {
			return err
		}
	}
	if err == nil && unmoved {
		unmoved, err = e.extendTagLife(a)
	}
	switch {
	case err != nil:
		return unansweredError{err}
	case !unmoved:
		return errOutdated
	}
	return nil
}

// storableYet looks at the error of making a's stored form, and at last at what this process has invalidated in the meantime: Redis may have
// been unavailable for the call that invalidates, and may not be for the one that stores.
func (e *Engine) storableYet(m *tags.Snapshot, a *attempt, err error) error {
	switch {
	case err == errOutdated, err == errLongCopy:
		return err
	case err != nil && errors.As(err, new(unansweredError)):
		a.Policy.Counters.RedisErrors.Add(1)
		return err
	case err != nil:
		if !errors.As(err, new(*wire.CodecError)) { // otherwise fill keeps the value in memory first
			a.call.Forget()
		}
		e.unstorable(a, err)
		return err
	case a.fence.BrokenHere(), a.lost.Load(), m.InvalidatedHere(a.Tags):
		return errOutdated
	}
	return nil
}

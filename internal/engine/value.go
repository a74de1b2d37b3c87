package engine

import (
	"errors"
	"reflect"
	"slices"

	"github.com/gatewayz/aside/internal/wire"
)

// encoded is a value of a policy with CloneOnRead. Each caller decodes a copy of its own.
type encoded struct {
	payload []byte
	codec   wire.Codec
	typ     reflect.Type // of the value that was encoded, or that the payload was read as
}

// encodeOwn replaces a loaded value by its encoded form.
func (a *attempt) encodeOwn(lim wire.Limits) error {
	codec := lim.Own(a.codec())
	payload, err := lim.Marshal(codec, a.out.Value)
	if err != nil {
		return &Error{Code: CodeInvalidArgument, Key: a.Key, Message: "Policy.CloneOnRead: the codec refuses the value", Err: err}
	}
	a.out.Value = &encoded{slices.Clone(payload), codec, a.Type}
	return nil
}

// copyTo decodes a copy. The payload is cloned, since the codec may keep parts of it.
func (e *encoded) copyTo(value any) error {
	return wire.Unmarshal(e.codec, slices.Clone(e.payload), value)
}

// codec returns the policy's codec, or the default one for the value's type.
func (a *attempt) codec() wire.Codec {
	if codec := a.Policy.Codec; codec != nil {
		return codec
	}
	if wire.IsRaw(a.Type) {
		return wire.Raw
	}
	return wire.JSON
}

// encode makes the stored form of a loaded value, without its envelope.
func (a *attempt) encode(lim wire.Limits) (payload []byte, codec uint32, err error) {
	if a.out.Value == nil {
		return a.out.absenceText(), 0, nil
	}
	if e, ok := a.out.Value.(*encoded); ok {
		return e.payload, wire.ID(e.codec), nil
	}
	own := a.codec()
	payload, err = lim.Marshal(own, a.out.Value)
	return payload, wire.ID(own), err
}

// decode decodes a value that Redis holds, or notes why that fails.
func (e *Engine) decode(a *attempt, v *storedValue) (any, bool) {
	codec, ok := wire.Builtin(v.header.Codec)
	switch own := a.codec(); {
	case !ok && wire.ID(own) == v.header.Codec:
		codec, ok = own, true
	case wire.IsExclusive(own): // such as one that encrypts: who can write to Redis must not replace a value by one in clear text
		ok = false
	}
	if !ok {
		e.otherBuild(a, errors.New("stored with a codec that the policy does not use"))
		return nil, false
	}
	if !e.limits().Fits(codec, a.Type, v.payload) {
		e.undecodable(a, errTooWide)
		return nil, false
	}
	value := reflect.New(a.Type).Interface()
	codec = e.limits().Own(codec)
	if err := wire.Unmarshal(codec, v.payload, value); err != nil {
		e.otherBuild(a, err)
		return nil, false
	}
	if a.narrower(codec, v.payload) {
		a.reason = ReasonFewerFields
		return nil, false
	}
	if a.Policy.CloneOnRead {
		return &encoded{v.payload, codec, a.Type}, true
	}
	return value, true
}

// convert converts a value in memory to the type that a asks for, as a read in Redis would: by the codec. It fails if the value cannot be decoded
// into that type. A value of a policy with CloneOnRead stays encoded.
func (e *Engine) convert(value any, a *attempt) (any, bool) {
	switch v := value.(type) {
	case nil, *absence:
		return value, true
	case *encoded:
		return value, v.typ == a.Type || e.decodes(a, v.codec, v.payload, reflect.New(a.Type).Interface())
	}
	typ := reflect.TypeOf(value).Elem()
	if typ == a.Type {
		return value, true
	}
	codec := (&attempt{Request: Request{Policy: a.Policy, Type: typ}}).codec()
	payload, err := e.limits().Marshal(codec, value)
	if err != nil {
		return nil, false
	}
	other := reflect.New(a.Type).Interface()
	return other, e.decodes(a, codec, payload, other)
}

// decodes decodes a payload that may be of another type, and reports whether that succeeded.
func (e *Engine) decodes(a *attempt, codec wire.Codec, payload []byte, into any) bool {
	if own, ok := wire.Builtin(wire.ID(codec)); ok && !e.limits().Fits(own, a.Type, payload) {
		return false
	}
	return e.limits().Unmarshal(codec, append([]byte(nil), payload...), into) == nil
}

// Copy decodes a value of a policy with CloneOnRead for one caller.
func Copy(value, into any) error { return value.(*encoded).copyTo(into) }

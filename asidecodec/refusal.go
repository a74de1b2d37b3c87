package asidecodec

// A refusal is why a codec of this package does not encode or decode a value. Its text has no part of the value, so the cache logs it.
type refusal string

func (r refusal) Error() string { return "asidecodec: " + string(r) }

// NoValue says that the text has no part of the value: see aside.Codec.
func (refusal) NoValue() {}

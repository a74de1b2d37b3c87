package aside

import "github.com/gatewayz/aside/internal/wire"

// A Codec turns values into the bytes that Redis keeps, and back. Memory keeps values as they are, so in memory mode no
// codec runs. A codec is used by many goroutines at once; one that panics counts as having failed. Its Name is stored with
// every value: change it when the format changes, and values of the old one become misses.
type Codec = wire.Codec

// The codecs that come with the package. A stored value is read by the codec that wrote it, so a policy can go from one
// of these to another without losing what is cached.
var (
	// JSON is encoding/json, the default.
	JSON = wire.JSON
	// MessagePack is https://msgpack.org: smaller, and several times faster to decode. Fields are named by `msgpack` tags.
	MessagePack = wire.MessagePack
	// Raw stores []byte, strings and types based on them as they are.
	Raw = wire.Raw
)

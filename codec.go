package aside

import "github.com/gatewayz/aside/internal/wire"

// A Codec turns values into the bytes that Redis keeps, and back. It is an interface with three methods:
//
//	Name() string                       // stands for the format in stored values
//	Marshal(v any) ([]byte, error)      // v is a pointer to the value
//	Unmarshal(data []byte, v any) error // v is a pointer to a zero value; data must not be changed, but may be kept
//
// Memory keeps values as they are, so in memory mode no codec runs but for Policy.Private and Options.Check. A codec is used by many goroutines at once; one that
// panics counts as having failed. Its Name is stored with every value: change it when the format changes, and values of the
// old one become misses. "json", "msgpack" and "raw" are taken.
type Codec = wire.Codec

// The codecs that come with the package. A stored value is read by the codec that wrote it, so a policy can go from one
// of these to another without losing what is cached.
var (
	// JSON is encoding/json, the default.
	JSON = wire.JSON
	// MessagePack is https://msgpack.org: smaller and quicker to decode than JSON. Fields are named by `msgpack` tags, not by
	// `json` ones. A value that contains itself must not be given to it: encoding it would not end.
	MessagePack = wire.MessagePack
	// Raw stores []byte, strings and types based on them as they are.
	Raw = wire.Raw
)

package aside

import "github.com/gatewayz/aside/internal/wire"

// A Codec turns values into the bytes that Redis keeps, and back. It is an interface with three methods:
//
//	Name() string                       // identifies the format in stored values
//	Marshal(v any) ([]byte, error)      // v is a pointer to the value
//	Unmarshal(data []byte, v any) error // v is a pointer to a zero value; data must not be changed, but may be kept
//
// Memory keeps Go values, so in memory mode codecs run only for Policy.Private and Options.Check. A codec is used by many goroutines at once. A
// panic counts as a failure. Its Name is stored with every value: change it when the format changes, so that values in the old format
// become misses. "json", "cbor" and "raw" are taken.
type Codec = wire.Codec

// The codecs of the package. A stored value is decoded by the codec that encoded it, so a policy can change from one of these to another
// without losing cached values. Each codec returns the value that it was given, or refuses it with an error that names the type and the field:
// docs/codecs.md has the rules, docs/codec-tables.md a table of types.
var (
	// JSON is encoding/json, the default for all types but bytes and strings. It leaves out unexported fields, and fields with the tag "-".
	// It refuses values that would be decoded as something else, such as a string that is not UTF-8, or an int in an interface.
	JSON = wire.JSON
	// CBOR is RFC 8949. It decodes several times as fast as JSON, and is smaller where values are not compressed. It keeps all numbers,
	// strings and bytes. Fields are named by their `cbor` tags, or by their `json` tags. It refuses types with unexported fields, except
	// locks and fields with the tag `cbor:"-"`.
	CBOR = wire.CBOR
	// Raw stores []byte, strings and types based on them as they are. It is the default for these.
	Raw = wire.Raw
)

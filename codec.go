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
// old one become misses. "json", "cbor" and "raw" are taken.
type Codec = wire.Codec

// The codecs that come with the package. A stored value is read by the codec that wrote it, so a policy can go from one
// of these to another without losing what is cached. Each gives back what it was given, or refuses it with an error that names the
// type and the field; docs/codecs.md has the rules, docs/codec-tables.md a table of types.
var (
	// JSON is encoding/json, the default but for bytes and strings. Unexported fields are left out, and so are those with
	// the tag "-". It refuses what would come back as something else: among others a string that is not UTF-8, and an int in an
	// interface.
	JSON = wire.JSON
	// CBOR is RFC 8949: several times as quick to decode as JSON, and smaller where values are not compressed. It keeps all numbers, strings and bytes. Fields are named by
	// their `cbor` tags, or else by their `json` ones. It refuses types with unexported fields, unless these are locks or have the
	// tag `cbor:"-"`.
	CBOR = wire.CBOR
	// Raw stores []byte, strings and types based on them as they are. It is the default for these.
	Raw = wire.Raw
)

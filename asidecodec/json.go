// Package asidecodec has codecs for package aside, and implementations of its formats, by libraries that aside itself does not depend on: protobuf, encryption
// by AES-GCM, and JSON by sonic.
package asidecodec

import (
	"unsafe"

	"github.com/bytedance/sonic"

	"github.com/gatewayz/aside"
)

// Sonic returns functions of github.com/bytedance/sonic for Options.JSON. They follow the rules of encoding/json, and decode a large value in
// about a quarter of its time: docs/codecs.md has figures. They compile code for each type at its first use, which takes milliseconds. On processors
// other than amd64 and arm64 sonic calls encoding/json. It refuses texts that are nested deeper than 4,096 levels,
// and decodes negative zero as zero.
func Sonic() aside.JSONFunctions {
	return aside.JSONFunctions{Marshal: sonic.ConfigStd.Marshal, Unmarshal: unmarshal}
}

// unmarshal is Unmarshal without its copy of the whole text, which takes a third of the time for a large value. ConfigStd copies each string and map key
// out of the text, so the value does not refer to data.
func unmarshal(data []byte, v any) error {
	return sonic.ConfigStd.UnmarshalFromString(unsafe.String(unsafe.SliceData(data), len(data)), v)
}

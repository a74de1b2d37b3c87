package bench

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/s2"
	shamaton "github.com/shamaton/msgpack/v3"
	vmihailenco "github.com/vmihailenco/msgpack/v5"

	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/asidecodec"
	"github.com/gatewayz/aside/internal/wire"
)

var modelsPath = flag.String("models", "", "a catalogue of models, as JSON, for BenchmarkCodecs")

// A model is one of the catalogue, as a service would have it.
type model struct {
	Provider        string             `json:"litellm_provider" msgpack:"litellm_provider"`
	Mode            string             `json:"mode" msgpack:"mode"`
	MaxInput        float64            `json:"max_input_tokens" msgpack:"max_input_tokens"`
	MaxOutput       float64            `json:"max_output_tokens" msgpack:"max_output_tokens"`
	InputCost       float64            `json:"input_cost_per_token" msgpack:"input_cost_per_token"`
	OutputCost      float64            `json:"output_cost_per_token" msgpack:"output_cost_per_token"`
	CacheReadCost   float64            `json:"cache_read_input_token_cost" msgpack:"cache_read_input_token_cost"`
	Functions       bool               `json:"supports_function_calling" msgpack:"supports_function_calling"`
	ToolChoice      bool               `json:"supports_tool_choice" msgpack:"supports_tool_choice"`
	Vision          bool               `json:"supports_vision" msgpack:"supports_vision"`
	Schema          bool               `json:"supports_response_schema" msgpack:"supports_response_schema"`
	Reasoning       bool               `json:"supports_reasoning" msgpack:"supports_reasoning"`
	PromptCaching   bool               `json:"supports_prompt_caching" msgpack:"supports_prompt_caching"`
	Source          string             `json:"source" msgpack:"source"`
	Endpoints       []string           `json:"supported_endpoints" msgpack:"supported_endpoints"`
	Modalities      []string           `json:"supported_modalities" msgpack:"supported_modalities"`
	SearchCosts     map[string]float64 `json:"search_context_cost_per_query" msgpack:"search_context_cost_per_query"`
	DeprecationDate string             `json:"deprecation_date" msgpack:"deprecation_date"`
}

// BenchmarkCodecs compares the codecs, and libraries that could take the place of CBOR, on a catalogue of 2,900 models: once as structs and
// once as maps of any.
//
//	go test -bench Codecs -models /path/to/models.json
func BenchmarkCodecs(b *testing.B) {
	if *modelsPath == "" {
		b.Skip("-models names no catalogue")
	}
	data, err := os.ReadFile(*modelsPath)
	if err != nil {
		b.Fatal(err)
	}
	var catalogue map[string]*json.RawMessage
	if err := json.Unmarshal(data, &catalogue); err != nil {
		b.Fatal(err)
	}
	typed := make(map[string]model)
	for id, text := range catalogue {
		var m model
		if json.Unmarshal(*text, &m) == nil { // a few have a text where the others have a number
			typed[id] = m
		}
	}
	var untyped map[string]map[string]any
	if err := json.Unmarshal(data, &untyped); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d of %d models are typed", len(typed), len(catalogue))
	b.Run("typed", func(b *testing.B) { benchmarkCodecs(b, &typed) })
	b.Run("any", func(b *testing.B) { benchmarkCodecs(b, &untyped) })
}

func benchmarkCodecs[T any](b *testing.B, value *T) {
	functions := asidecodec.Sonic()
	bySonic := wire.Limits{MaxValue: math.MaxInt32, JSON: &functions}.Own(wire.JSON)
	for _, c := range []struct {
		name      string
		marshal   func(any) ([]byte, error)
		unmarshal func([]byte, any) error
	}{
		{"aside.JSON", aside.JSON.Marshal, aside.JSON.Unmarshal},
		{"aside.JSON by sonic", bySonic.Marshal, bySonic.Unmarshal},
		{"aside.CBOR", aside.CBOR.Marshal, aside.CBOR.Unmarshal},
		{"encoding-json", json.Marshal, json.Unmarshal},
		{"fxamacker-cbor", cbor.Marshal, cbor.Unmarshal},
		{"shamaton-msgpack", shamaton.MarshalAsMap, shamaton.UnmarshalAsMap},
		{"vmihailenco-msgpack", vmihailenco.Marshal, vmihailenco.Unmarshal},
	} {
		data, err := c.marshal(value)
		if err != nil {
			b.Fatal(c.name, err)
		}
		b.Run(c.name+"/encode", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.marshal(value); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(data)), "bytes")
			b.ReportMetric(float64(len(s2.Encode(nil, data))), "s2-bytes")
		})
		b.Run(c.name+"/decode", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := c.unmarshal(data, new(T)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// hostile payloads, of few bytes or of a few megabytes, each well-formed or not. What they cost is what BenchmarkHostile shows.
var hostile = map[string]struct{ cbor, msgpack []byte }{
	"a list of 2^32 that is not there": {[]byte("\x9a\xff\xff\xff\xff"), []byte("\xdd\xff\xff\xff\xff")},
	"500 lists of the rest":            {lists(0x9a), lists(0xdd)},
	"a map whose keys are all one":     {bytes.Join([][]byte{[]byte("\xba\x00\x01\x00\x00"), bytes.Repeat([]byte("\x61a\x01"), 1<<16)}, nil), bytes.Join([][]byte{[]byte("\xdf\x00\x01\x00\x00"), bytes.Repeat([]byte("\xa1a\x01"), 1<<16)}, nil)},
	"900 levels":                       {append(bytes.Repeat([]byte{0x81}, 900), 0xf6), append(bytes.Repeat([]byte{0x91}, 900), 0xc0)},
}

func lists(head byte) []byte {
	const size = 1 << 20
	var data []byte
	for len(data) < 500*5 {
		left := size - len(data) - 5
		data = append(data, head, byte(left>>24), byte(left>>16), byte(left>>8), byte(left))
	}
	return append(data, make([]byte, size-len(data))...)
}

// BenchmarkHostile shows what a decoder without bounds of its own allocates. Deeper nesting is left out: it ends the process
// in those that have no bound for it.
func BenchmarkHostile(b *testing.B) {
	for name, h := range hostile {
		for _, c := range []struct {
			name      string
			data      []byte
			unmarshal func([]byte, any) error
		}{
			{"aside.CBOR", append([]byte("\x82\x1a\x00\x00\x00\x00"), h.cbor...), aside.CBOR.Unmarshal},
			{"fxamacker-cbor", h.cbor, cbor.Unmarshal},
			{"shamaton-msgpack", h.msgpack, shamaton.UnmarshalAsMap},
			{"vmihailenco-msgpack", h.msgpack, vmihailenco.Unmarshal},
		} {
			b.Run(name+"/"+c.name, func(b *testing.B) {
				if strings.Contains(name, "list") && c.name == "vmihailenco-msgpack" {
					b.Skip("it allocates what five bytes say that there is, 64 GiB, and the process ends")
				}
				if strings.HasPrefix(name, "500") && c.name == "shamaton-msgpack" {
					b.Skip("it allocates 8 GB, which a machine may not have")
				}
				b.ReportAllocs()
				refused := 0
				for b.Loop() {
					func() {
						defer func() { _ = recover() }()
						refused = 1
						if c.unmarshal(c.data, new(any)) == nil {
							refused = 0
						}
					}()
				}
				b.ReportMetric(float64(refused), "refused")
			})
		}
	}
}

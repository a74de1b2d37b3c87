package main

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// This is the default catalogue, without -catalog. Gateways, families and prices are invented. The format is that of a catalogue file.

var (
	ownGateways = strings.Fields(`
		alderway basalt bluefin cedarline cobalt driftwood eastgate fernhill
		granite harbour ironwood juniper kestrel lanternfish meridian northwind
		openrouter palisade quarry riverbend saltmarsh tidewater umbra westfold`)
	ownFamilies = strings.Fields("aster borealis cirrus dahlia ember fjord gale heron iris jetty")
	ownSizes    = []int{3, 8, 27, 70, 220}
	ownTunes    = []string{"base", "chat", "coder"}
)

// ownCatalogue returns the same catalogue at every start: 24 gateways with 60 to 140 models each.
func ownCatalogue() *catalogue {
	rnd := rand.New(rand.NewPCG(24, 1))
	var models []model
	for _, gateway := range ownGateways {
		carried := 0.4 + 0.5*rnd.Float64()
		markup := 1 + 0.4*rnd.Float64()
		for _, family := range ownFamilies {
			for _, size := range ownSizes {
				for _, tune := range ownTunes {
					if rnd.Float64() < carried {
						models = append(models, ownModel(rnd, gateway, family, tune, size, markup))
					}
				}
			}
		}
	}
	return newCatalogue(models)
}

func ownModel(rnd *rand.Rand, gateway, family, tune string, size int, markup float64) model {
	window := 8192 << rnd.IntN(6)
	price := func(part float64) float64 { return math.Round(part*float64(size)*markup*2.5e4) / 1e12 }
	info, err := json.Marshal(map[string]any{
		"litellm_provider":            gateway,
		"mode":                        "chat",
		"family":                      family,
		"parameters_b":                size,
		"max_input_tokens":            window,
		"max_output_tokens":           window / 4,
		"input_cost_per_token":        price(1),
		"output_cost_per_token":       price(4),
		"cache_read_input_token_cost": price(0.1),
		"supports_function_calling":   tune != "base",
		"supports_vision":             size > 20 && rnd.IntN(2) == 0,
		"supports_response_schema":    tune == "coder",
		"description": fmt.Sprintf("%s with %d billion parameters, tuned for %s, served by %s.",
			strings.ToUpper(family[:1])+family[1:], size, tune, gateway),
	})
	if err != nil {
		panic(err) // cannot happen: strings and finite numbers always encode
	}
	return model{ID: fmt.Sprintf("%s/%s-%db-%s", gateway, family, size, tune), Gateway: gateway, Info: info}
}

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A product is about 1.6 KB as JSON, most of it one text, so that its decoding does not hide what a library does.
type product struct {
	ID          int
	Name        string
	Description string
	Brand       string
	Currency    string
	Price       float64
	Stock       int
	Tags        []string
}

func newProduct(id int) *product {
	return &product{
		ID: id, Name: "product " + strconv.Itoa(id), Description: strings.Repeat("twelve bytes", 118), Brand: "a brand", Currency: "EUR", Price: 12.5, Stock: id % 100,
		Tags: []string{"new", "blue", "wool", "winter"},
	}
}

// A model is one of a catalogue.
type model struct {
	ID              string             `json:"id" msgpack:"id"`
	Provider        string             `json:"litellm_provider" msgpack:"litellm_provider"`
	Mode            string             `json:"mode" msgpack:"mode"`
	MaxInput        float64            `json:"max_input_tokens" msgpack:"max_input_tokens"`
	MaxOutput       float64            `json:"max_output_tokens" msgpack:"max_output_tokens"`
	InputCost       float64            `json:"input_cost_per_token" msgpack:"input_cost_per_token"`
	OutputCost      float64            `json:"output_cost_per_token" msgpack:"output_cost_per_token"`
	CacheReadCost   float64            `json:"cache_read_input_token_cost" msgpack:"cache_read_input_token_cost"`
	Functions       bool               `json:"supports_function_calling" msgpack:"supports_function_calling"`
	Vision          bool               `json:"supports_vision" msgpack:"supports_vision"`
	Schema          bool               `json:"supports_response_schema" msgpack:"supports_response_schema"`
	Reasoning       bool               `json:"supports_reasoning" msgpack:"supports_reasoning"`
	Source          string             `json:"source" msgpack:"source"`
	Endpoints       []string           `json:"supported_endpoints" msgpack:"supported_endpoints"`
	Modalities      []string           `json:"supported_modalities" msgpack:"supported_modalities"`
	SearchCosts     map[string]float64 `json:"search_context_cost_per_query" msgpack:"search_context_cost_per_query"`
	DeprecationDate string             `json:"deprecation_date" msgpack:"deprecation_date"`
}

type catalogue []model

// newCatalogue returns a catalogue of about size bytes as JSON: the one in the file at path, or a generated one, repeated with other
// ids. source names where its models are from.
func newCatalogue(path string, size int) (c *catalogue, source string, err error) {
	models, source := generated(), "generated models"
	if path != "" {
		if models, err = readModels(path); err != nil {
			return nil, "", err
		}
		source = "the models of a real catalogue, from a file"
	}
	text, err := json.Marshal(models)
	if err != nil {
		return nil, "", err
	}
	each := len(text) / len(models)
	out := make(catalogue, 0, size/each+1)
	for copies := 0; len(out)*each < size; copies++ {
		for _, m := range models[:min(len(models), size/each+1-len(out))] {
			if copies > 0 {
				m.ID += "-" + strconv.Itoa(copies)
			}
			out = append(out, m)
		}
	}
	return &out, source, nil
}

// readModels reads a catalogue as the LiteLLM project publishes it: an object of model ids.
func readModels(path string) ([]model, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var byID map[string]json.RawMessage
	if err := json.Unmarshal(text, &byID); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var models []model
	for id, text := range byID {
		m := model{ID: id}
		if json.Unmarshal(text, &m) == nil { // a few have a text where the others have a number
			models = append(models, m)
		}
	}
	if len(models) == 0 {
		return nil, fmt.Errorf("%s: no model in it", path)
	}
	slices.SortFunc(models, func(a, b model) int { return strings.Compare(a.ID, b.ID) })
	return models, nil
}

func generated() []model {
	r := rand.New(rand.NewPCG(1, 2))
	models := make([]model, 3000)
	for i := range models {
		provider := "provider-" + strconv.Itoa(r.IntN(120))
		m := model{
			ID: provider + "/model-" + strconv.Itoa(i), Provider: provider, Mode: "chat", MaxInput: float64(r.IntN(1 << 20)), MaxOutput: float64(r.IntN(1 << 17)),
			InputCost: r.Float64() / 1e5, OutputCost: r.Float64() / 1e5, CacheReadCost: r.Float64() / 1e6,
			Functions: r.IntN(2) == 0, Vision: r.IntN(3) == 0, Schema: r.IntN(3) == 0, Reasoning: r.IntN(4) == 0,
		}
		if r.IntN(3) == 0 {
			m.Source = "https://" + provider + ".example.com/docs/models/" + strconv.Itoa(i)
			m.Endpoints = []string{"/v1/chat/completions", "/v1/responses"}
			m.Modalities = []string{"text", "image"}
		}
		if r.IntN(10) == 0 {
			m.SearchCosts = map[string]float64{"search_context_size_low": 0.03, "search_context_size_high": 0.05}
		}
		models[i] = m
	}
	return models
}

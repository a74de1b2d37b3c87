package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// maxCatalogue bounds the size of the file that -catalog names. A wrong path to a huge file is then an error, and does not fill the memory.
const maxCatalogue = 256 << 20

// model is one entry of a catalogue, as an upstream sends it.
type model struct {
	ID      string          `json:"id"`
	Gateway string          `json:"gateway"`
	Info    json.RawMessage `json:"info"`
}

// catalogue has all models by gateway. It is the data of the upstreams. The server itself only keeps which gateway carries which model.
type catalogue struct {
	gateways []string // sorted
	models   map[string][]model
	size     int // bytes of all models, encoded
	count    int
}

// readCatalogue reads a file of the form
//
//	{"model id": {"litellm_provider": "gateway", …}, …}
//
// An entry without a provider belongs to no gateway and is left out.
func readCatalogue(path string) (*catalogue, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	if info.Size() > maxCatalogue {
		return nil, fmt.Errorf("catalogue %s: %d bytes are more than the %d allowed", path, info.Size(), maxCatalogue)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	cat, err := parseCatalogue(text)
	if err != nil {
		return nil, fmt.Errorf("catalogue %s: %w", path, err)
	}
	return cat, nil
}

func parseCatalogue(text []byte) (*catalogue, error) {
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(text, &entries); err != nil {
		return nil, fmt.Errorf("want an object of model id -> description: %w", err)
	}
	var models []model
	for id, info := range entries {
		var entry struct {
			Provider string `json:"litellm_provider"`
		}
		if err := json.Unmarshal(info, &entry); err != nil {
			return nil, fmt.Errorf("model %q: %w", id, err)
		}
		if id == "" || entry.Provider == "" {
			continue
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, info); err != nil {
			return nil, fmt.Errorf("model %q: %w", id, err)
		}
		models = append(models, model{ID: id, Gateway: entry.Provider, Info: compact.Bytes()})
	}
	if len(models) == 0 {
		return nil, errors.New("no entry has an id and a litellm_provider")
	}
	// Maps have no order, and runs of the report should be comparable.
	slices.SortFunc(models, func(a, b model) int { return strings.Compare(a.ID, b.ID) })
	return newCatalogue(models), nil
}

func newCatalogue(models []model) *catalogue {
	cat := &catalogue{models: make(map[string][]model), count: len(models)}
	for _, m := range models {
		cat.models[m.Gateway] = append(cat.models[m.Gateway], m)
		cat.size += m.size()
	}
	for name := range cat.models {
		cat.gateways = append(cat.gateways, name)
	}
	slices.Sort(cat.gateways)
	return cat
}

// size is about the length of the model's JSON. It ignores escapes in the id.
func (m model) size() int {
	return len(`{"id":"","gateway":"","info":},`) + len(m.ID) + len(m.Gateway) + len(m.Info)
}

// repeat returns the catalogue with n copies of each model, under different ids.
func (cat *catalogue) repeat(n int) *catalogue {
	if n <= 1 {
		return cat
	}
	models := make([]model, 0, n*cat.count)
	for i := range n {
		for _, name := range cat.gateways {
			for _, m := range cat.models[name] {
				if i > 0 {
					m.ID += "@r" + strconv.Itoa(i+1)
				}
				models = append(models, m)
			}
		}
	}
	return newCatalogue(models)
}

// reach repeats the catalogue until its JSON has at least size bytes.
func (cat *catalogue) reach(size int) *catalogue {
	n := (size + cat.size - 1) / cat.size
	for {
		if big := cat.repeat(n); big.size >= size {
			return big
		}
		n++
	}
}

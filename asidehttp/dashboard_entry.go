package asidehttp

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"unicode/utf8"

	"github.com/gatewayz/aside"
)

// How much of a value the page gets.
const (
	mostOfValue  = 64 << 10
	mostInHex    = 4 << 10
	mostIndented = 16 // levels: each line of what is nested deeper would be mostly white space
)

// entry answers with what is cached under one key. It takes a turn, as a listing does: Redis is asked for the whole value.
func (d *dashboard) entry(r *http.Request, who visitor, query url.Values) (any, *problem) {
	s, p := d.resolve(order{selector: byKeys, names: []string{query.Get("key")}})
	if p != nil {
		return nil, p
	}
	ctx, cancel := context.WithTimeout(r.Context(), defaultWait)
	defer cancel()
	end, err := d.turns.take(ctx, who.sum)
	if err != nil {
		return nil, newProblem(http.StatusServiceUnavailable, "%s", errNoTurn)
	}
	defer end()
	most := 0
	if d.seesValues(who) {
		most = mostOfValue
	}
	e, err := d.cache.Inspect(ctx, s.keys[0], most)
	if errors.Is(err, aside.ErrClosed) {
		return nil, problemOf(err)
	}
	a := entryAnswer{standing: d.standing(d.cache.Metrics()), keyRow: keyRowOf(e.KeyInfo), Verdict: e.Verdict, Problem: e.Problem, Policy: e.Policy}
	a.Tags, a.ETag, a.LoadTook, a.Stored, a.Decoded, a.Compressed = append([]string{}, e.Tags...), e.ETag, seconds(e.LoadTook), e.Stored, e.Decoded, e.Compressed
	a.Chunks, a.Nonce, a.Generations, a.InMemory = e.Chunks, e.Nonce, generationsOf(e.Generations), inMemoryOf(e.InMemory)
	switch {
	case err != nil:
		a.Error = message(err)
	case len(e.Payload) > 0:
		d.shown(who, e.Key)
		a.Value = d.valueOf(e)
	}
	return a, nil
}

// An entryAnswer is an aside.Entry. Times are in seconds.
type entryAnswer struct {
	standing
	keyRow
	entryDetails
	Verdict string `json:"verdict"`
	Problem string `json:"problem,omitempty"`
	Policy  string `json:"policy,omitempty"`
	Value   *value `json:"value,omitempty"` // only for those who may see it
	Error   string `json:"error,omitempty"` // why Redis could not be read
}

type entryDetails struct {
	ETag        string       `json:"etag,omitempty"`
	LoadTook    float64      `json:"loadTook"`
	Stored      int64        `json:"stored"`
	Decoded     int64        `json:"decoded"`
	Compressed  bool         `json:"compressed"`
	Chunks      int          `json:"chunks"`
	Nonce       string       `json:"nonce,omitempty"`
	Generations []generation `json:"generations"`
	InMemory    *inMemory    `json:"inMemory"`
}

// A generation has its numbers as texts: they are larger than a number in JavaScript can be.
type generation struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Then    string `json:"then"`
	Now     string `json:"now"`
	Current bool   `json:"current"`
}

func generationsOf(list []aside.TagGeneration) []generation {
	all := []generation{}
	for _, g := range list {
		all = append(all, generation{g.Kind, g.Name, strconv.FormatUint(g.Then, 10), strconv.FormatUint(g.Now, 10), g.Current()})
	}
	return all
}

type inMemory struct {
	Verdict string  `json:"verdict"`
	Type    string  `json:"type"`
	TTL     float64 `json:"ttl"`
	Age     float64 `json:"age"`
	Size    int64   `json:"size"`
}

func inMemoryOf(m *aside.InMemory) *inMemory {
	if m == nil {
		return nil
	}
	return &inMemory{m.Verdict, m.Type, seconds(m.TTL), seconds(m.Age), m.Size}
}

// A value is what is shown of a value.
type value struct {
	Text string `json:"text"`
	Form string `json:"form"` // "json", "text" or "hex"
	Cut  bool   `json:"cut"`  // there is more of it
}

func (d *dashboard) valueOf(e aside.Entry) *value {
	v, cut := e.Payload, e.Decoded > int64(len(e.Payload))
	if d.redact != nil {
		v = d.redact(e.Key, v)
		v = v[:min(len(v), mostOfValue)]
	}
	switch whole := bytes.TrimRight(v, " \t\r\n"); {
	case shallow(whole) && json.Valid(whole):
		var indented bytes.Buffer
		_ = json.Indent(&indented, whole, "", "  ") // it is valid
		return &value{indented.String(), "json", cut}
	case isText(v, cut):
		return &value{string(v), "text", cut}
	}
	return &value{hex.Dump(v[:min(len(v), mostInHex)]), "hex", cut || len(v) > mostInHex}
}

// shallow reports whether a JSON text is not nested deeply. It counts brackets in strings too, which makes it err on the safe side.
func shallow(text []byte) bool {
	depth := 0
	for _, c := range text {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		if depth > mostIndented {
			return false
		}
	}
	return true
}

// isText reports whether bytes are UTF-8, but for a character that is cut at their end.
func isText(v []byte, cut bool) bool {
	if cut {
		for n := 1; n < utf8.UTFMax && n <= len(v) && !utf8.Valid(v); n++ {
			if utf8.RuneStart(v[len(v)-n]) {
				v = v[:len(v)-n]
				break
			}
		}
	}
	return utf8.Valid(v)
}

// shown logs that somebody has seen a value, at most every ten seconds for each key of the API.
func (d *dashboard) shown(who visitor, key string) {
	if n, due := d.gate.seen.count(who.sum); due {
		d.gate.log.Info("asidehttp: value shown", "key", who.name, "client", who.addr.String(), "name", shortened(key), "requests", n)
	}
}

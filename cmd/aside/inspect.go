package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatewayz/aside/internal/inspect"
	"github.com/gatewayz/aside/internal/keyspace"
	"github.com/gatewayz/aside/internal/redisstore"
	"github.com/gatewayz/aside/internal/wire"
)

var inspectVerb = verb{
	name: "inspect", arguments: "KEY", does: "what lies in Redis under a key, and whether a process serves it",
	details: `
It prints when the value was loaded and until when it is fresh, its size, its tags with their
generations when it was loaded and now, and the value itself: JSON with indentation, CBOR as
JSON, text as it is, anything else in hexadecimal. The exit code is 1 if no process serves the
value.`,
	where: onRedis,
	prepare: func(flags *flag.FlagSet) action {
		raw := flags.Bool("raw", false, "write the bytes of the value, decompressed, and nothing else")
		most := flags.Int("most", 4096, "print at most `N` bytes of the value; 0 for none")
		return func(ctx context.Context, c *call) error { return inspectKey(ctx, c, *raw, *most) }
	},
}

func inspectKey(ctx context.Context, c *call, raw bool, most int) error {
	switch {
	case len(c.args) != 1 || c.args[0] == "":
		return usage("give one key, such as products:7")
	case most < 0:
		return usage("-most is negative")
	case raw && c.json:
		return usage("-raw and -json exclude each other")
	}
	key := c.args[0]
	if c.namespace != "" {
		key = strings.TrimPrefix(key, c.prefix()) // as redis-cli shows it
	}
	store, err := c.store(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	e, err := inspect.Read(ctx, store, key, c.prefix()+key, wire.Limits{MaxValue: maxValue, CompressFrom: -1})
	switch {
	case err != nil:
		return fmt.Errorf("reading the key failed: %s", redisstore.Describe(err))
	case raw && e.Payload == nil:
		return fmt.Errorf("no value: %s", verdict(&e))
	case raw:
		_, err = c.out.Write(e.Payload)
	case c.json:
		err = inspectedJSON(c, &e, most)
	default:
		err = printInspected(c, &e, most)
	}
	if err == nil && e.Verdict != inspect.Served && e.Verdict != inspect.Stale {
		return errFinding
	}
	return err
}

// verdict is the verdict in a line.
func verdict(e *inspect.Entry) string {
	switch {
	case e.Problem != nil:
		return string(e.Verdict) + ": " + e.Problem.Error()
	case e.Verdict == inspect.Stale:
		return "past its TTL: served by policies with Stale or StaleIfError alone"
	}
	return string(e.Verdict)
}

func since(now, at int64) string { return show(time.Duration(now-at)*time.Microsecond) + " ago" }

func until(now, at int64) string {
	if at <= now {
		return "until " + since(now, at)
	}
	return "for " + show(time.Duration(at-now)*time.Microsecond)
}

// show is a duration for a reader.
func show(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func printInspected(c *call, e *inspect.Entry, most int) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, oneLine(fmt.Sprintf(format, args...)))
	}
	row("key", "%s", e.Name)
	row("verdict", "%s", verdict(e))
	h := &e.Header
	if h.LoadStart != 0 {
		row("value", "%s", kind(e))
		row("size", "%s", sizes(e))
		took := "less than 1ms"
		if h.LoadDuration > 0 {
			took = show(h.LoadDuration)
		}
		row("load", "began %s, took %s", since(e.Now, h.LoadStart), took)
		row("fresh", "%s", until(e.Now, h.FreshUntil))
		row("kept", "%s", until(e.Now, h.DeadUntil))
		if h.ETag != "" {
			row("etag", "%s", h.ETag)
		}
		row("fill", "%s", h.Nonce)
	} else if e.Size > 0 {
		row("size", "%d bytes", e.Size)
	}
	name := "tags"
	for _, t := range e.Tags {
		row(name, "%s", tagLine(e, t))
		name = ""
	}
	if err := w.Flush(); err != nil || len(e.Payload) == 0 || most == 0 {
		return err
	}
	text, more := cut(e, most)
	_, err := fmt.Fprintf(c.out, "\n%s\n%s", text, more)
	return err
}

// oneLine keeps a name in Redis from making a line of its own.
func oneLine(text string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(inspect.Printable(text))
}

func kind(e *inspect.Entry) string {
	if e.Header.Negative {
		return `a cached "not found"`
	}
	text := e.Codec()
	if e.Header.Policy != 0 {
		text += fmt.Sprintf(", of the policy %#x", e.Header.Policy) // the hash of its name, and its version
	}
	if e.Header.OwnTTL {
		text += ", with a TTL of its own"
	}
	return text
}

func sizes(e *inspect.Entry) string {
	text := fmt.Sprintf("%d bytes in Redis", e.Size)
	if e.Compressed() {
		text += fmt.Sprintf(", the value is %d, compressed to %d", e.Decoded, e.Stored)
	} else {
		text += fmt.Sprintf(", the value is %d", e.Stored)
	}
	if e.Chunks > 0 {
		text += fmt.Sprintf(", in %d chunks", e.Chunks)
	}
	return text
}

// tagName is a tag as the program calls it.
func tagName(name string) string {
	switch category, ok := strings.CutPrefix(name, keyspace.CategoryPrefix); {
	case name == keyspace.All:
		return "everything"
	case ok:
		return "category " + category
	}
	if keyspace.IsNamed(name) {
		return "tag " + keyspace.GivenName(strings.TrimPrefix(name, keyspace.NamedPrefix))
	}
	return name
}

// A generation is mostly the time of the invalidation that made it.
func tagLine(e *inspect.Entry, t inspect.Tag) string {
	switch {
	case t.Current():
		return fmt.Sprintf("%s: %d, current", tagName(t.Name), t.Then)
	case t.Now == 0:
		return fmt.Sprintf("%s: %d, and now none", tagName(t.Name), t.Then)
	}
	return fmt.Sprintf("%s: %d, now %d: invalidated %s", tagName(t.Name), t.Then, t.Now, since(e.Now, int64(t.Now)))
}

// cut is the text of the payload up to a length, and a line about the rest.
func cut(e *inspect.Entry, most int) (text, more string) {
	text, whole := e.Text(most)
	switch {
	case !whole:
		text = strings.ToValidUTF8(text[:min(most, len(text))], "")
		more = fmt.Sprintf("… the value has %d bytes: -raw writes all\n", len(e.Payload))
	case len(text) > most:
		more = fmt.Sprintf("… %d more bytes: -most %d shows all\n", len(text)-most, len(text))
		text = strings.ToValidUTF8(text[:most], "")
	}
	return text, more
}

func inspectedJSON(c *call, e *inspect.Entry, most int) error {
	type tag struct {
		Name    string `json:"name"`
		Then    uint64 `json:"then"`
		Now     uint64 `json:"now"`
		Current bool   `json:"current"`
	}
	type times struct {
		Loaded     time.Time `json:"loaded"`
		LoadMS     int64     `json:"load_ms"`
		FreshUntil time.Time `json:"fresh_until"`
		KeptUntil  time.Time `json:"kept_until"`
	}
	a := struct {
		Key      string          `json:"key"`
		Verdict  string          `json:"verdict"`
		Problem  string          `json:"problem,omitempty"`
		Codec    string          `json:"codec,omitempty"`
		Negative bool            `json:"negative,omitempty"`
		Policy   string          `json:"policy,omitempty"`
		ETag     string          `json:"etag,omitempty"`
		Fill     string          `json:"fill,omitempty"`
		Size     int64           `json:"size"`
		Stored   int64           `json:"stored"`
		Decoded  int             `json:"decoded"`
		Chunks   int             `json:"chunks,omitempty"`
		Now      time.Time       `json:"server_time"`
		Times    *times          `json:"times,omitempty"`
		Tags     []tag           `json:"tags"`
		Value    json.RawMessage `json:"value,omitempty"`
		Base64   string          `json:"value_base64,omitempty"`
	}{
		Key: e.Name, Verdict: string(e.Verdict), Size: e.Size, Stored: e.Stored, Decoded: e.Decoded, Chunks: e.Chunks, Now: time.UnixMicro(e.Now).UTC(), Tags: []tag{},
	}
	if e.Problem != nil {
		a.Problem = e.Problem.Error()
	}
	if h := &e.Header; h.LoadStart != 0 {
		a.Codec, a.Negative, a.ETag, a.Fill = e.Codec(), h.Negative, h.ETag, h.Nonce.String()
		if h.Policy != 0 {
			a.Policy = fmt.Sprintf("%#x", h.Policy)
		}
		a.Times = &times{time.UnixMicro(h.LoadStart).UTC(), h.LoadDuration.Milliseconds(), time.UnixMicro(h.FreshUntil).UTC(), time.UnixMicro(h.DeadUntil).UTC()}
	}
	for _, t := range e.Tags {
		a.Tags = append(a.Tags, tag{t.Name, t.Then, t.Now, t.Current()})
	}
	text := ""
	if len(e.Payload) <= most {
		text, _ = e.Text(most)
	}
	if json.Valid([]byte(text)) {
		a.Value = json.RawMessage(text)
	} else if most > 0 {
		a.Base64 = base64.StdEncoding.EncodeToString(e.Payload[:min(most, len(e.Payload))])
	}
	return writeJSON(c, a)
}

func writeJSON(c *call, v any) error { return encode(c, v, "  ") }

// encode prints JSON, with every character that a terminal may take for a command escaped.
func encode(c *call, v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := c.out.Write(inspect.PrintableJSON(b.Bytes()))
	return err
}

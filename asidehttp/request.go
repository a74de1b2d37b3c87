package asidehttp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxBody     = 64 << 10
	maxNames    = 1000 // keys or tags of one request
	maxName     = 1024 // bytes of a key, tag, category or pattern
	defaultWait = 5 * time.Second
	maxWait     = 30 * time.Second
)

const example = `send a JSON object with one of {"category":"models"}, {"pattern":"sessions:ABC:*"}, {"keys":["models:all:all"]} and {"tags":["supplier 3"]}; "wait" (seconds) and "dry_run" may go with it; or {"warm":"models"} alone, or {"bypass":"models","on":true}`

// An order is the request in the body of a POST.
type order struct {
	selector string   // the field that says what is selected: one of the constants below
	names    []string // the keys or tags, or the one category, pattern or warmer
	wait     time.Duration
	dryRun   bool
	on       bool // of byBypass
}

// The selectors, as the fields are named in the body.
const (
	byCategory = "category"
	byPattern  = "pattern"
	byKeys     = "keys"
	byTags     = "tags"
	byWarm     = "warm"   // selects nothing: it starts a warmer
	byBypass   = "bypass" // selects nothing: it has calls bypass the cache, or ends that
)

// readOrder reads and parses the body of a POST.
func readOrder(w http.ResponseWriter, r *http.Request) (order, *problem) {
	tooLarge := newProblem(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes: %s", maxBody, example)
	if kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" ||
		params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") || r.Header.Get("Content-Encoding") != "" {
		return order{}, newProblem(http.StatusUnsupportedMediaType, "send the body as Content-Type: application/json, in UTF-8 and not compressed")
	}
	if r.ContentLength > maxBody {
		return order{}, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if exceeded := (*http.MaxBytesError)(nil); errors.As(err, &exceeded) {
		return order{}, tooLarge
	}
	if err != nil {
		return order{}, badRequest("the body could not be read to its end: send it again")
	}
	o, p := parseOrder(body)
	if p != nil {
		p.bodyRead = true
	}
	return o, p
}

// parseOrder parses a body. It reads the fields of the object one by one, since encoding/json would accept two fields of one name, and names in
// other letter cases.
func parseOrder(body []byte) (order, *problem) {
	if len(bytes.TrimSpace(body)) == 0 {
		return order{}, badRequest("the body is empty: %s", example)
	}
	if !utf8.Valid(body) {
		return order{}, badRequest("the body is not UTF-8: %s", example)
	}
	if !json.Valid(body) {
		return order{}, badRequest("the body is not one JSON object and nothing else: %s", example)
	}
	if brokenEscape(body) {
		return order{}, badRequest(`the body has half of a surrogate pair as a \u escape: write both halves, or the character itself`)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if open, _ := d.Token(); open != json.Delim('{') {
		return order{}, badRequest("the body is not a JSON object: %s", example)
	}
	o := order{wait: defaultWait}
	seen := make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		name, isText := token.(string)
		var value json.RawMessage
		if err == nil && isText {
			err = d.Decode(&value)
		}
		if err != nil || !isText { // such as an object that is nested too deeply for encoding/json
			return order{}, badRequest("the body cannot be read: %s", example)
		}
		if seen[name] {
			return order{}, badRequest("the body has a field twice, %s: send it once", quote(name))
		}
		seen[name] = true
		if p := o.set(name, value); p != nil {
			return order{}, p
		}
	}
	if o.selector == "" {
		return order{}, badRequest("the body does not say what to invalidate: %s", example)
	}
	if o.selector == byWarm && len(seen) > 1 {
		return order{}, badRequest("warm takes no other field: send it alone, and see how it went with GET ?warm=")
	}
	if given := seen["on"]; given != (o.selector == byBypass) || given && len(seen) > 2 {
		return order{}, badRequest(`bypass goes with "on", true or false, and with no other field: send {"bypass":"models","on":true}`)
	}
	return o, nil
}

// set sets one field of an order.
func (o *order) set(name string, value json.RawMessage) *problem {
	switch name {
	case byCategory, byPattern, byKeys, byTags, byWarm, byBypass:
		if o.selector != "" {
			return badRequest("the body has both %s and %s: send one of them, and a second request for the other", o.selector, name)
		}
		o.selector = name
	}
	switch name {
	case byCategory, byPattern, byWarm, byBypass:
		var text string
		if !decode(value, &text) || text == "" {
			return badRequest("%s is not a text: %s", name, example)
		}
		if len(text) > maxName {
			return unacceptable("%s has %d bytes: send one of at most %d", name, len(text), maxName)
		}
		o.names = []string{text}
	case byKeys, byTags:
		var texts []*string // pointers, since a null is not an empty text
		if !decode(value, &texts) || len(texts) == 0 {
			return badRequest("%s is not a list of texts: %s", name, example)
		}
		if len(texts) > maxNames {
			return unacceptable("%s has %d texts: send at most %d with one request, or a pattern or a category instead", name, len(texts), maxNames)
		}
		for i, text := range texts {
			if text == nil || *text == "" {
				return badRequest("%s[%d] is not a text: %s", name, i, example)
			}
			if len(*text) > maxName {
				return unacceptable("%s[%d] has %d bytes: send texts of at most %d, or the category that they are of", name, i, len(*text), maxName)
			}
			o.names = append(o.names, *text)
		}
	case "wait":
		var seconds float64
		if !decode(value, &seconds) || !(seconds >= 0 && seconds <= maxWait.Seconds()) {
			return badRequest("wait is not a number of seconds from 0 to %v: send %v, or leave it out for as much", maxWait.Seconds(), defaultWait.Seconds())
		}
		o.wait = time.Duration(math.Round(seconds * float64(time.Second)))
	case "on":
		if !decode(value, &o.on) {
			return badRequest("on is neither true nor false")
		}
	case "dry_run":
		if !decode(value, &o.dryRun) {
			return badRequest("dry_run is neither true nor false")
		}
	default:
		return badRequest("the body has an unknown field, %s: %s", quote(name), example)
	}
	return nil
}

// decode is json.Unmarshal of one value that is not null.
func decode(raw json.RawMessage, v any) bool {
	return !bytes.Equal(raw, []byte("null")) && json.Unmarshal(raw, v) == nil
}

// quote quotes a text of a client, or the beginning of a long one.
func quote(text string) string {
	const most = 64
	if len(text) > most {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(text[:most], ""))
	}
	return fmt.Sprintf("%q", text)
}

// brokenEscape reports whether a \u escape in valid JSON is half of a surrogate pair. encoding/json would replace it by another character, and
// so select another name.
func brokenEscape(body []byte) bool {
	high := func(i int) bool {
		return i+5 < len(body) && string(body[i:i+2]) == `\u` && (body[i+2]|0x20) == 'd' && surrogate(body[i+3], "89aAbB")
	}
	low := func(i int) bool {
		return i+5 < len(body) && string(body[i:i+2]) == `\u` && (body[i+2]|0x20) == 'd' && surrogate(body[i+3], "cCdDeEfF")
	}
	for i := 0; i < len(body); i++ {
		switch {
		case body[i] != '\\':
		case high(i) && low(i+6):
			i += 11
		case high(i) || low(i):
			return true
		default:
			i++
		}
	}
	return false
}

func surrogate(digit byte, digits string) bool { return strings.IndexByte(digits, digit) >= 0 }

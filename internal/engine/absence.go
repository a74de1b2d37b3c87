package engine

import (
	"strings"

	"github.com/gatewayz/aside/internal/causes"
)

// An absence is a "not found" in memory whose loader has returned an error of its own. The size of its text counts like that of a value.
// Nothing else that the error holds is measured: it may be a map that the program still writes to.
type absence struct {
	err  error
	text string
}

// largestAbsence bounds the text of such an error. Of a longer text, such as the whole response of a source, the beginning is kept.
const largestAbsence = 64 << 10

// IsAbsent reports whether a value in memory is a "not found".
func IsAbsent(value any) bool {
	_, is := value.(*absence)
	return is || value == nil
}

// absentError returns the error of a "not found" in memory.
func absentError(value any) error {
	if a, ok := value.(*absence); ok {
		return a.err
	}
	return nil
}

// inMemory returns the outcome's value in the form that memory keeps.
func (o *Outcome) inMemory() any {
	if o.Value == nil && o.Absent != nil {
		text := causes.Text(o.Absent)
		if len(text) > largestAbsence {
			text = cut(text, longestAbsence)
			return &absence{&AbsenceText{Text: text, Name: nameOf(o.Absent)}, text}
		}
		return &absence{o.Absent, text}
	}
	return o.Value
}

// nameOf returns the error of Policy.NotFound that a "not found" is, nil if it is none.
func nameOf(absent error) error {
	switch a := absent.(type) {
	case *AbsenceText:
		return a.Name
	case interface{ Name() error }:
		return a.Name()
	}
	return nil
}

// longestAbsence bounds the text of a "not found" in Redis. A longer text is not stored, and the "not found" is.
const longestAbsence = 1 << 10

// beforeName stands between the text of a "not found" in Redis and the text of the error of Policy.NotFound that it is. If a text has such a byte
// itself, it ends with another one: the last one counts.
const beforeName = 0

// absenceText returns the text of a "not found" for Redis, empty if it says no more than "not found".
func (o *Outcome) absenceText() []byte {
	if o.Absent == nil {
		return nil
	}
	text, name := causes.Text(o.Absent), ""
	if n := nameOf(o.Absent); n != nil {
		name = StoredName(n)
	}
	if len(text) > longestAbsence || text == plainAbsence {
		text = ""
	}
	if len(name) > longestAbsence {
		name = ""
	}
	stored := []byte(text)
	if name != "" || strings.IndexByte(text, beforeName) >= 0 {
		stored = append(append(stored, beforeName), name...)
	}
	return stored
}

// StoredName is the text of an error of Policy.NotFound in Redis.
func StoredName(name error) string {
	return strings.ReplaceAll(causes.Text(name), string(rune(beforeName)), " ")
}

// absentElsewhere returns the error of a "not found" in Redis: its text alone, since the error's type may belong to another process. An error of
// Policy.NotFound is known by its text.
func absentElsewhere(stored []byte, p *Policy) error {
	text, name := string(stored), ""
	if at := strings.LastIndexByte(text, beforeName); at >= 0 {
		text, name = text[:at], text[at+1:]
	}
	a := &AbsenceText{Text: text}
	if name != "" {
		for _, n := range p.NotFound {
			if StoredName(n) == name {
				a.Name = n
			}
		}
		if text == "" {
			a.Text = name
		}
	}
	if a.Text == "" || len(text) > longestAbsence || len(name) > longestAbsence {
		return nil
	}
	return a
}

// An AbsenceText is the text of a loader's "not found" error, which may have been loaded by another process.
type AbsenceText struct {
	Text string
	Name error // the one of Policy.NotFound; nil if it is none
}

func (e *AbsenceText) Error() string { return e.Text }

// plainAbsence is the text of a plain "not found".
const plainAbsence = "aside: not found"

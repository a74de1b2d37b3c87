package engine

import "github.com/gatewayz/aside/internal/causes"

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
			return &absence{&AbsenceText{text}, text}
		}
		return &absence{o.Absent, text}
	}
	return o.Value
}

// longestAbsence bounds the text of a "not found" in Redis. A longer text is not stored, and the "not found" is.
const longestAbsence = 1 << 10

// absenceText returns the text of a "not found" for Redis, empty if it says no more than "not found".
func (o *Outcome) absenceText() []byte {
	if o.Absent == nil {
		return nil
	}
	text := causes.Text(o.Absent)
	if len(text) > longestAbsence || text == plainAbsence {
		return nil
	}
	return []byte(text)
}

// absentElsewhere returns the error of a "not found" in Redis: its text alone, since the error's type may belong to another process.
func absentElsewhere(text []byte) error {
	if len(text) == 0 || len(text) > longestAbsence {
		return nil
	}
	return &AbsenceText{string(text)}
}

// An AbsenceText is the text of a loader's "not found" error, which may have been loaded by another process.
type AbsenceText struct{ Text string }

func (e *AbsenceText) Error() string { return e.Text }

// plainAbsence is the text of a plain "not found".
const plainAbsence = "aside: not found"

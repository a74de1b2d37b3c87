package engine

import "github.com/gatewayz/aside/internal/causes"

// An absence is what memory keeps of a "not found" whose loader has said more than that. Its text counts like what a value takes.
// What else the error holds is not looked at: it may be a map that the program goes on writing to.
type absence struct {
	err  error
	text string
}

// largestAbsence is how long the text of such an error may be. Of a longer one, which may be a source's whole answer, the beginning is kept.
const largestAbsence = 64 << 10

// IsAbsent reports whether a value in memory is a "not found".
func IsAbsent(value any) bool {
	_, is := value.(*absence)
	return is || value == nil
}

// absentError is the error of a "not found" that memory holds.
func absentError(value any) error {
	if a, ok := value.(*absence); ok {
		return a.err
	}
	return nil
}

// inMemory is the outcome's value as memory keeps it.
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

// longestAbsence is how long the text of a "not found" may be that is stored in Redis. Of a longer one Redis keeps that there is
// nothing, and not the text.
const longestAbsence = 1 << 10

// absenceText is the text of a "not found" for Redis, empty where it says no more than that.
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

// absentElsewhere is the error of a "not found" that Redis holds. Another process cannot have the loader's error itself.
func absentElsewhere(text []byte) error {
	if len(text) == 0 || len(text) > longestAbsence {
		return nil
	}
	return &AbsenceText{string(text)}
}

// An AbsenceText is all that is left of what a loader, in this process or another, has said of a "not found".
type AbsenceText struct{ Text string }

func (e *AbsenceText) Error() string { return e.Text }

// plainAbsence is the text of a "not found" of which there is nothing more to say.
const plainAbsence = "aside: not found"

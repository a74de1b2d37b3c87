// Package causes looks at errors that the program has made: at their causes, which may not end, and at their text, which may panic.
package causes

import "slices"

const (
	most    = 1 << 20
	deepest = 1000
)

// End reports whether the causes of an error come to an end. Where they do not, errors.Is would not either, or would overflow the
// stack, which ends the process.
func End(err error) bool {
	left := most
	return end(err, deepest, &left)
}

func end(err error, depth int, left *int) bool {
	if err == nil {
		return true
	}
	if *left--; *left < 0 || depth == 0 {
		return false
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return end(e.Unwrap(), depth-1, left)
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(cause error) bool { return !end(cause, depth-1, left) })
	}
	return true
}

// Text is the text of an error. Its methods may panic.
func Text(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = "an error whose methods panic"
		}
	}()
	return err.Error()
}

package asidetest

import (
	"fmt"
	"testing"
)

// Seen notes what a test has seen of a row of the table of faults, in a line that scripts/faults.sh makes the table of: which
// fails where a row has none. Row 0 is for what concerns several. It comes last in a test, when all that is expected has
// been required.
func Seen(t testing.TB, row int, fault, expected, format string, args ...any) {
	t.Helper()
	t.Logf("fault|%d|%s|%s|%s", row, fault, expected, fmt.Sprintf(format, args...))
}

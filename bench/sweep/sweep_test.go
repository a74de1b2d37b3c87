package main

import (
	"strings"
	"testing"
)

func TestTheReportOfASweep(t *testing.T) {
	for _, cluster := range []bool{false, true} {
		r := measure(t, config{keys: 2000, size: 100, cluster: cluster})
		if r.removed != 2000 || len(r.beside) == 0 {
			t.Errorf("%d removed, %d GETs beside that", r.removed, len(r.beside))
		}
		if text := r.String(); !strings.Contains(text, "2000 values: 2000 removed in ") {
			t.Error(text)
		}
	}
}

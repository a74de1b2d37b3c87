package asideprom

import (
	_ "embed"
	"slices"
)

//go:embed aside.rules.yml
var rules []byte

// Rules returns a file of rules for Prometheus, in YAML: the recorded hit ratio, and alerts whose annotations say what to do. They are for the
// default of Options.Prefix.
func Rules() []byte { return slices.Clone(rules) }

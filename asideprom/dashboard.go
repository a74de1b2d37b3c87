package asideprom

import (
	_ "embed"
	"slices"
)

//go:generate go run ./board -o aside.dashboard.json

//go:embed aside.dashboard.json
var dashboard []byte

// Dashboard returns a dashboard for Grafana, in JSON: import it, or let Grafana provision it as a file. It asks for a data source of Prometheus 2.40
// or later, with classic or native histograms. It is for the default of Options.Prefix.
func Dashboard() []byte { return slices.Clone(dashboard) }

// Package asideprom exports the metrics of an aside.Cache to Prometheus:
//
//	collector, err := asideprom.New(c, asideprom.Options{})
//	if err != nil {
//		log.Fatal(err)
//	}
//	prometheus.MustRegister(collector)
//
// The collector reads Cache.Metrics, Cache.Health and Cache.Nodes at each scrape. It holds no counters and starts nothing. Rules has recording and alerting
// rules for these metrics. docs/observability.md lists the metrics and the alerts.
package asideprom

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatewayz/aside"
)

// Options are the options of New. The zero value is ready.
type Options struct {
	// Name is the value of the label "cache" of every series. Two caches on one registry need two names: a registry refuses the second collector
	// with the same name. Default: "default".
	Name string

	// Prefix begins the name of each metric. It has letters, digits and underscores, and does not begin with a digit. The rules of Rules are for
	// the default. Default: "aside".
	Prefix string

	// Labels are constant labels of every series. Collectors on one registry need the same names of labels. A label that the metrics have
	// themselves, such as "cache" or "label", is refused. Default: none.
	Labels prometheus.Labels

	// Native adds native histograms to the classic ones, with the buckets of aside.Histogram. A Prometheus server that scrapes native histograms
	// drops the classic ones of the same metric, unless it is configured to keep both: queries of _bucket, _sum and _count then find nothing.
	// Default: false.
	Native bool
}

// plainName is what the text format calls a name, of labels and of metrics, without the colons that are for rules.
var plainName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// validate returns an error for each field that is wrong.
func (o Options) validate() error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, &aside.Error{Code: aside.CodeInvalidOption, Message: fmt.Sprintf(format, args...)})
	}
	if !utf8.ValidString(o.Name) {
		wrong("asideprom.Options.Name is %q, which is not UTF-8: set another name", o.Name)
	}
	if !plainName.MatchString(o.Prefix) {
		wrong("asideprom.Options.Prefix is %q: use letters, digits and underscores, and do not begin with a digit", o.Prefix)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Labels)) {
		switch value := o.Labels[name]; {
		case slices.Contains(ownLabels(), name):
			wrong("asideprom.Options.Labels has the label %q, which the metrics have themselves: give it another name", name)
		case !plainName.MatchString(name) || strings.HasPrefix(name, "__"):
			wrong("asideprom.Options.Labels has the label %q: use letters, digits and underscores, and do not begin with a digit or two underscores", name)
		case !utf8.ValidString(value):
			wrong("asideprom.Options.Labels[%q] is %q, which is not UTF-8: set another value", name, value)
		}
	}
	return errors.Join(errs...)
}

// New makes a collector for the metrics of c. It fails for invalid Options, with an *aside.Error for each field that is wrong.
//
// A nil cache and a closed one are in the state "degraded", as Cache.Health says, for which alerts fire. The counters of a closed cache keep their
// values. Unregister the collector of a cache that is closed before the process ends.
//
// The labels of policies in aside.Options.Policies have all their series from the first scrape, with the value 0. Another label has them from the
// first call, so that rate does not see that call. A label, or an address of a server, that is not valid UTF-8 is shown with U+FFFD for what is not,
// and those that look the same then are counted together. A cache in memory mode has no series of Redis.
func New(c *aside.Cache, o Options) (prometheus.Collector, error) {
	if o.Name == "" {
		o.Name = "default"
	}
	if o.Prefix == "" {
		o.Prefix = "aside"
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	col := &collector{cache: c, mode: modeOf(c), version: version(), native: o.Native}
	constant := prometheus.Labels{cacheLabel: o.Name}
	maps.Copy(constant, o.Labels)
	col.describe(func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(o.Prefix+"_"+name, help, labels, constant)
	})
	return col, nil
}

// modeOf says where the cache keeps values, which does not change. It is empty if that cannot be known: only a nil or closed cache has no Since.
func modeOf(c *aside.Cache) string {
	switch h := c.Health(); {
	case h.Since.IsZero():
		return ""
	case h.State == aside.StateMemory:
		return "memory"
	default:
		return "redis"
	}
}

const module = "github.com/gatewayz/aside"

// version is the version of the library that the program was built with, empty if the build does not have it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return versionIn(info)
}

func versionIn(info *debug.BuildInfo) string {
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path != module {
			continue
		}
		for m.Replace != nil {
			m = m.Replace
		}
		if m.Version != "(devel)" {
			return m.Version
		}
	}
	return ""
}

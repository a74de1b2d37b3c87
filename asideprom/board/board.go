package main

//lint:file-ignore SA1019 every version of Grafana imports this form of a dashboard, and only the newest its successor.

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// A target is a query with the text of its legend.
type target struct{ query, legend string }

// A panel is a graph.
type panel struct {
	title, description, unit string
	width                    uint32  // of 24
	stacked                  bool    // the series add up
	most                     float64 // the upper end of the axis; 0: as the values have it
	targets                  []target
}

// A row is a question that its panels answer.
type row struct {
	title  string
	panels []panel
}

var rows = []row{
	{"Serving", []panel{
		{title: "Processes by state", width: 6, stacked: true, unit: units.Short,
			description: "degraded: Redis is configured and not in use. The reason is in Health, and in the log.",
			targets:     []target{{total("aside_state", "state"), "{{state}}"}}},
		{title: "Hit ratio", width: 6, unit: units.PercentUnit, most: 1,
			description: "The share of calls that were answered from the cache. A sudden fall: see the misses by cause.",
			targets:     []target{{share(rate("aside_hits_total", "label"), calls("label")), "{{label}}"}}},
		{title: "Calls by where they were answered", width: 6, stacked: true, unit: units.RequestsPerSecond,
			description: "memory: this process's memory. redis: Redis. load: by the loader, or by an error.",
			targets:     []target{{rate("aside_hits_total", "tier"), "{{tier}}"}, {rate("aside_misses_total", ""), "load"}}},
		{title: "Calls that memory did not answer, p50 and p99", width: 6, unit: units.Seconds,
			description: "Hits in memory are not timed.",
			targets: []target{
				{quantile(0.5, "aside_call_duration_seconds", labels, "label"), "p50 {{label}}"},
				{quantile(0.99, "aside_call_duration_seconds", labels, "label"), "p99 {{label}}"},
			}},
		{title: "Stale share", width: 12, unit: units.PercentUnit,
			description: "The share of calls that got a value past its TTL, or one that Redis could not confirm. It is expected of policies with Stale, and while Redis is unavailable.",
			targets:     []target{{share(rate("aside_stale_hits_total", "label"), calls("label")), "{{label}}"}}},
		{title: "Hits on \"not found\"", width: 12, unit: units.PercentUnit,
			description: "The share of calls that got a cached \"not found\". Many: somebody asks for what does not exist.",
			targets:     []target{{share(rate("aside_negative_hits_total", "label"), calls("label")), "{{label}}"}}},
	}},
	{"Why not a hit", []panel{
		{title: "Misses by cause", width: 12, stacked: true, unit: units.RequestsPerSecond,
			description: "absent: never stored, evicted, invalidated, or expired and removed. expired: past the TTL. invalidated: by a tag or the category. unusable: another build or codec, or a part is gone. unavailable: Redis. asked: the option Refresh.",
			targets:     []target{{rate("aside_misses_total", "cause"), "{{cause}}"}}},
		{title: "Errors by kind", width: 6, stacked: true, unit: units.EventsPerSecond,
			description: "load: the loader. redis: operations on Redis. decode: values in Redis that cannot be used. encode: values that cannot be stored.",
			targets:     []target{{rate("aside_errors_total", "kind"), "{{kind}}"}}},
		{title: "Rejected fills", width: 6, unit: units.EventsPerSecond,
			description: "Loaded values that were not stored, because they were invalidated during the load.",
			targets:     []target{{rate("aside_fills_rejected_total", "label"), "{{label}}"}}},
	}},
	{"Source", []panel{
		{title: "Loads by outcome", width: 6, stacked: true, unit: units.RequestsPerSecond,
			description: "What the source gets. error, timeout and panic are failures: callers got an error, or an older value.",
			targets:     []target{{rate("aside_loads_total", "outcome"), "{{outcome}}"}}},
		{title: "Load duration, p50 and p99", width: 6, unit: units.Seconds,
			description: "A loader that exceeds its LoadTimeout counts with the LoadTimeout.",
			targets: []target{
				{quantile(0.5, "aside_load_duration_seconds", labels, "label"), "p50 {{label}}"},
				{quantile(0.99, "aside_load_duration_seconds", labels, "label"), "p99 {{label}}"},
			}},
		{title: "Running and queued loads", width: 6, unit: units.Short,
			description: "Over all processes. Loads that are queued for long: the source is slower than before, or MaxLoads is too low.",
			targets: []target{
				{total("aside_loads_running", ""), "running"}, {total("aside_loads_limit", ""), "limit"}, {total("aside_loads_queued", ""), "queued"},
				{total("aside_loaders_unreturned", ""), "not returned after LoadTimeout"},
			}},
		{title: "Refused loads, refreshes", width: 6, unit: units.EventsPerSecond,
			description: "refused: the queue is full, or too many loaders have not returned. refreshes: loads in the background. stale on error: callers that got an older value in place of an error.",
			targets: []target{
				{rate("aside_overloads_total", ""), "refused"}, {rateOf("aside_refreshes_total", ""), "refreshes"},
				{rateOf("aside_refresh_errors_total", ""), "failed refreshes"}, {rateOf("aside_stale_on_error_total", ""), "stale on error"},
			}},
	}},
	{"Redis", []panel{
		{title: "Servers in use", width: 6, unit: units.Short,
			description: "The processes that send calls to each server. A server that only some processes cannot use: the network between them.",
			targets:     []target{{total("aside_redis_up", "node"), "{{node}}"}}},
		{title: "Trips by cause", width: 6, stacked: true, unit: units.Short,
			description: "How often a process had to stop sending calls to a server. broken: the connection. timeout: no answer. slow: answers later than OpTimeout. silent: a change was not pushed. unready: loads its data, or has no primary. refused: the user, or all writes.",
			targets:     []target{{number("aside_redis_trips_total", "cause"), "{{cause}}"}}},
		{title: "Round trip duration, p99", width: 6, unit: units.Seconds,
			description: "By what round trips are for. Compare with OpTimeout.",
			targets:     []target{{quantile(0.99, "aside_redis_duration_seconds", caches, "op"), "{{op}}"}}},
		{title: "Round trips", width: 6, stacked: true, unit: units.OpsPerSecond,
			description: "By what they are for. In a cluster each node is a round trip of its own.",
			targets:     []target{{observations("aside_redis_duration_seconds", caches, "op"), "{{op}}"}}},
		{title: "Invalidation messages", width: 6, unit: units.EventsPerSecond,
			description: "Pushes of Redis about changed keys, those about changes of the same process included.",
			targets:     []target{{rateOf("aside_invalidation_messages_total", ""), "messages"}}},
		{title: "Losses of tracking", width: 6, unit: units.Short,
			description: "How often messages could have been missed, so that memory starts anew. A process without calls for a minute pauses tracking, which is no fault.",
			targets:     []target{{number("aside_tracking_lost_total", ""), "lost or paused"}, {number("aside_tracking_paused_total", ""), "paused"}}},
		{title: "Invalidations", width: 6, stacked: true, unit: units.EventsPerSecond,
			description: "Calls that invalidate, by what. swept: values that the cleanup behind them has removed.",
			targets: []target{
				{rateOf("aside_invalidations_total", "by"), "{{by}}"}, {rateOf("aside_swept_entries_total", ""), "swept"},
				{rateOf("aside_invalidation_errors_total", ""), "not confirmed at once"},
			}},
		{title: "Unconfirmed invalidations", width: 6, unit: units.Short,
			description: "Invalidations that Redis has not confirmed, and how many seconds the oldest has waited. Until then other processes may serve older values. Do not restart the process that retries them.",
			targets: []target{
				{total("aside_invalidations_unconfirmed", ""), "invalidations"},
				{"max(aside_invalidations_unconfirmed_oldest_seconds" + caches + ")", "seconds of the oldest"},
				{total("aside_leases_unreturned", ""), "leases not released"},
			}},
	}},
	{"Memory", []panel{
		{title: "Fill ratio", width: 8, unit: units.PercentUnit, most: 1,
			description: "Of the fullest process: the estimated bytes of the values, and their number, of their bounds.",
			targets: []target{
				{"max by (cache) (aside_memory_bytes" + caches + " / aside_memory_max_bytes" + caches + ")", "{{cache}}: bytes"},
				{"max by (cache) (aside_memory_entries" + caches + " / aside_memory_max_entries" + caches + ")", "{{cache}}: entries"},
			}},
		{title: "Evictions", width: 8, unit: units.EventsPerSecond,
			description: "Values that made room for others. Many, and many misses with the cause absent: raise MaxBytes.",
			targets:     []target{{rateOf("aside_memory_evictions_total", "cache"), "{{cache}}"}}},
		{title: "Size of stored values, p50 and p99", width: 8, unit: units.BytesIEC,
			description: "Encoded and compressed; in memory mode estimated.",
			targets: []target{
				{quantile(0.5, "aside_value_bytes", labels, "label"), "p50 {{label}}"},
				{quantile(0.99, "aside_value_bytes", labels, "label"), "p99 {{label}}"},
			}},
	}},
	{"Right?", []panel{
		{title: "Inconsistent values per million checks, last hour", width: 12, unit: units.Short,
			description: "Checked hits that were still served and still wrong after SettleTime. Above 0: a write without an invalidation. The key is in the log. Nothing is here without ConsistencyCheck.",
			targets: []target{{"1e6 * " + share("sum by (label) (increase(aside_checks_inconsistent_total"+labels+"[1h]))",
				"sum by (label) (increase(aside_checks_total"+labels+"[1h]))"), "{{label}}"}}},
		{title: "Checks", width: 12, unit: units.EventsPerSecond,
			description: "Hits that were compared with a fresh load, and samples that were skipped.",
			targets:     []target{{rate("aside_checks_total", ""), "compared"}, {rate("aside_checks_skipped_total", ""), "skipped"}}},
	}},
}

// source is the data source that is chosen in the dashboard.
func source() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}
}

func newBoard() *dashboard.DashboardBuilder {
	b := dashboard.NewDashboardBuilder("aside").
		Uid("aside-cache").
		Description("Caches of github.com/gatewayz/aside, by the metrics of its module asideprom.").
		Tags([]string{"aside", "cache"}).
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Time("now-1h", "now").
		Refresh("30s").
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus")).
		WithVariable(choice("job", "Job", `label_values(aside_info, job)`)).
		WithVariable(choice("cache", "Cache", `label_values(aside_info{job=~"$job"}, cache)`)).
		WithVariable(choice("label", "Label", `label_values(aside_hits_total`+caches+`, label)`))
	id := uint32(0)
	next := func() uint32 { id++; return id }
	for _, r := range rows {
		b.WithRow(dashboard.NewRowBuilder(r.title).Id(next()))
		for _, p := range r.panels {
			b.WithPanel(p.graph(next()))
		}
	}
	return b
}

// choice is a variable with the values of a label. At first it selects all.
func choice(name, title, query string) *dashboard.QueryVariableBuilder {
	all := dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}}
	text := dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}}
	return dashboard.NewQueryVariableBuilder(name).
		Label(title).
		Query(dashboard.StringOrMap{String: &query}).
		Definition(query).
		Datasource(source()).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc).
		Multi(true).
		IncludeAll(true).
		AllValue(".*").
		Current(dashboard.VariableOption{Selected: cog.ToPtr(true), Text: text, Value: all})
}

func (p panel) graph(id uint32) *timeseries.PanelBuilder {
	g := timeseries.NewPanelBuilder().
		Id(id).
		Title(p.title).
		Description(p.description).
		Datasource(source()).
		Span(p.width).
		Height(8).
		Unit(p.unit).
		Min(0).
		LineWidth(1).
		FillOpacity(10).
		ShowPoints(common.VisibilityModeNever).
		Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).ShowLegend(true)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
	if p.most > 0 {
		g.Max(p.most)
	}
	if p.stacked {
		g.FillOpacity(30).Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A"))
	}
	for i, t := range p.targets {
		g.WithTarget(prometheus.NewDataqueryBuilder().Datasource(source()).RefId(string(rune('A' + i))).Expr(t.query).LegendFormat(t.legend).Range())
	}
	return g
}

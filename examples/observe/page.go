package main

import (
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A graph is a query that the page shows.
type graph struct {
	Title string
	query string
	show  func(float64) string // a value with its unit
}

// graphs are what an operator asks first. asideprom.Dashboard has more.
var graphs = []graph{
	{"Hit ratio", `sum by (label) (rate(aside_hits_total[1m])) / (sum by (label) (rate(aside_hits_total[1m])) + sum by (label) (rate(aside_misses_total[1m])))`, percent},
	{"Misses by cause", `sum by (cause) (rate(aside_misses_total[1m])) > 0`, perSecond},
	{"Loads by outcome", `sum by (outcome) (rate(aside_loads_total[1m])) > 0`, perSecond},
	{"Load duration, p99", `histogram_quantile(0.99, sum by (label, le) (rate(aside_load_duration_seconds_bucket[1m])))`, seconds},
	{"Values in memory, of the most", `aside_memory_entries / aside_memory_max_entries`, percent},
	{"Evictions", `sum by (cache) (rate(aside_memory_evictions_total[1m]))`, perSecond},
}

func percent(v float64) string   { return fmt.Sprintf("%.1f %%", 100*v) }
func perSecond(v float64) string { return fmt.Sprintf("%.2f/s", v) }
func seconds(v float64) string {
	return time.Duration(v * float64(time.Second)).Round(100 * time.Microsecond).String()
}

// The size of a graph, and what it shows.
const (
	width, height = 480, 140
	span          = 5 * time.Minute
	step          = 2 * time.Second
)

// A line is a series, as the page draws it.
type line struct {
	Color, Name, Latest string
	Points              []string // of each stretch without a gap
}

// A drawing is a graph with its lines.
type drawing struct {
	Title, Top string
	Lines      []line
}

var colors = []string{"#3274d9", "#e0752d", "#56a64b", "#a352cc", "#c4162a", "#8f8f8f", "#b79e00", "#00a0a0"}

// draw asks Prometheus for a graph.
func (g graph) draw(prometheus string, now time.Time) (drawing, error) {
	parameters := url.Values{
		"query": {g.query}, "step": {fmt.Sprint(step.Seconds())},
		"start": {fmt.Sprint(now.Add(-span).Unix())}, "end": {fmt.Sprint(now.Unix())},
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	response, err := client.Get(prometheus + "/api/v1/query_range?" + parameters.Encode())
	if err != nil {
		return drawing{}, err
	}
	defer response.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any // seconds, and a number as text
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return drawing{}, err
	}
	if answer.Error != "" {
		return drawing{}, fmt.Errorf("%s: %s", g.Title, answer.Error)
	}
	type point struct{ at, value float64 }
	series, most := make([][]point, len(answer.Data.Result)), 0.0
	for i, r := range answer.Data.Result {
		for _, v := range r.Values {
			at, _ := v[0].(float64)
			text, _ := v[1].(string)
			value, err := strconv.ParseFloat(text, 64)
			if err == nil && !math.IsNaN(value) && !math.IsInf(value, 0) {
				series[i] = append(series[i], point{at, value})
				most = max(most, value)
			}
		}
	}
	d := drawing{Title: g.Title, Top: g.show(most)}
	for i, points := range series {
		if len(points) == 0 {
			continue
		}
		l := line{Color: colors[i%len(colors)], Name: nameOf(answer.Data.Result[i].Metric), Latest: g.show(points[len(points)-1].value)}
		var stretch strings.Builder
		for n, p := range points {
			if n > 0 && p.at > points[n-1].at+1.5*step.Seconds() {
				l.Points = append(l.Points, stretch.String())
				stretch.Reset()
			}
			x := width * (1 - (float64(now.Unix())-p.at)/span.Seconds())
			fmt.Fprintf(&stretch, "%.1f,%.1f ", x, 1+(height-2)*(1-p.value/max(most, math.SmallestNonzeroFloat32)))
		}
		l.Points = append(l.Points, stretch.String())
		d.Lines = append(d.Lines, l)
	}
	return d, nil
}

// nameOf is the value of the label by which a query groups.
func nameOf(metric map[string]string) string {
	for _, label := range []string{"label", "cause", "outcome", "cache"} {
		if metric[label] != "" {
			return metric[label]
		}
	}
	return "all"
}

var page = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>aside under traffic</title><style>
body { font: 14px system-ui, sans-serif; margin: 24px; color: #222; background: #fff; font-variant-numeric: tabular-nums }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(500px, 1fr)); gap: 24px }
h2 { font-size: 15px; margin: 0 0 4px } svg { border: 1px solid #ccc; background: #fafafa } ul { list-style: none; padding: 0; margin: 4px 0 }
li { display: inline-block; margin-right: 16px } b { display: inline-block; width: 10px; height: 10px; margin-right: 5px }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181b1f } svg { border-color: #444; background: #111217 } }
</style></head><body>
<h1>aside under traffic</h1>
<p>The last 5 minutes, as Prometheus has them. The page loads itself anew every 5 seconds.</p>
{{with .Error}}<p role="alert">{{.}}</p>{{end}}
<main>{{range .Drawings}}<section><h2>{{.Title}}</h2>
<svg viewBox="0 0 480 140" width="480" height="140" role="img" aria-label="{{.Title}}">
{{range .Lines}}{{$color := .Color}}{{range .Points}}<polyline fill="none" stroke="{{$color}}" stroke-width="1.5" points="{{.}}"/>{{end}}{{end}}</svg>
<ul><li>top: {{.Top}}</li>{{range .Lines}}<li><b style="background:{{.Color}}"></b>{{.Name}}: {{.Latest}}</li>{{end}}</ul></section>
{{end}}</main></body></html>
`))

// pageOf serves the graphs. prometheus is its address, empty if there is none.
func pageOf(prometheus string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		var content struct {
			Error    string
			Drawings []drawing
		}
		now := time.Now()
		if prometheus == "" {
			content.Error = "There is no Prometheus, so there are no graphs: the command has said how to get one."
		} else {
			for _, g := range graphs {
				d, err := g.draw(prometheus, now)
				if err != nil {
					content.Error = err.Error()
					break
				}
				content.Drawings = append(content.Drawings, d)
			}
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, content) // the only error is that the reader has gone
	}
}

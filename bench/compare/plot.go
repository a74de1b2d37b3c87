package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

const (
	plotWidth  = 760
	labelWidth = 190
	barHeight  = 22
	scaleWidth = plotWidth - labelWidth - 90
)

// svg plots the first column: a bar for the median of each row, and a line from the lowest to the highest round. The scale is
// logarithmic if the figures are far apart.
func (r result) svg() string {
	low, high := math.Inf(1), 0.0
	sums := make([]summary, len(r.rows))
	for i := range r.rows {
		sums[i] = r.summary(i, -1, r.columns[0])
		if sums[i].low > 0 {
			low = min(low, sums[i].low)
		}
		high = max(high, sums[i].high)
	}
	unit, at := string(r.columns[0]), func(f float64) float64 { return scaleWidth * f / max(high, math.SmallestNonzeroFloat64) }
	if high > 30*low {
		unit += ", logarithmic"
		floor := math.Pow(10, math.Floor(math.Log10(low)))
		at = func(f float64) float64 {
			return scaleWidth * math.Log(max(f, floor)/floor) / math.Log(high/floor)
		}
	}
	var out strings.Builder
	height := barHeight*len(r.rows) + 60
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, height, plotWidth, height)
	fmt.Fprintf(&out, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, height)
	fmt.Fprintf(&out, `<text x="10" y="20" font-size="14">%s</text><text x="10" y="38" fill="#555">%s; less is better</text>`+"\n", html.EscapeString(r.title), html.EscapeString(unit))
	for i, row := range r.rows {
		y, color := 50+barHeight*i, "#9ab"
		if row.ours() {
			color = "#27c"
		}
		middle := y + barHeight/2
		fmt.Fprintf(&out, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-8, middle+4, html.EscapeString(row.name))
		fmt.Fprintf(&out, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y+3, at(sums[i].median), barHeight-6, color)
		fmt.Fprintf(&out, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="black"/>`, labelWidth+at(sums[i].low), middle, labelWidth+at(sums[i].high), middle)
		fmt.Fprintf(&out, `<text x="%.1f" y="%d">%s</text>`+"\n", labelWidth+at(sums[i].high)+6, middle+4, figure(sums[i].median))
	}
	out.WriteString("</svg>\n")
	return out.String()
}

package main

import (
	"fmt"
	"strconv"
	"strings"
)

// markdown is the table of a scenario, and who is ahead of aside in it.
func (r result) markdown() string {
	var out strings.Builder
	base := r.base()
	fmt.Fprintf(&out, "| | %s | ratio |", r.columns[0])
	for _, c := range r.columns[1:] {
		fmt.Fprintf(&out, " %s |", c)
	}
	out.WriteString("\n|---|" + strings.Repeat("--:|", len(r.columns)+1) + "\n")
	for i, row := range r.rows {
		first := r.summary(i, base, r.columns[0])
		fmt.Fprintf(&out, "| %s | %s (%s to %s) | ", row.name, figure(first.median), figure(first.low), figure(first.high))
		if first.ratio > 0 {
			out.WriteString(figure(first.ratio))
		}
		out.WriteString(" |")
		for _, c := range r.columns[1:] {
			fmt.Fprintf(&out, " %s |", figure(r.summary(i, base, c).median))
		}
		out.WriteByte('\n')
	}
	return out.String() + "\n" + r.ahead()
}

func (r result) summary(row, base int, c column) summary {
	if base < 0 {
		return summarize(r.figures(row, c), nil)
	}
	return summarize(r.figures(row, c), r.figures(base, c))
}

// ahead names the libraries that are faster than the best row of aside, and why they are. Ratios of more than 0.97 count as equal.
func (r result) ahead() string {
	best := -1
	for i, row := range r.rows {
		if row.ours() && (best < 0 || r.summary(i, -1, r.columns[0]).median < r.summary(best, -1, r.columns[0]).median) {
			best = i
		}
	}
	if best < 0 {
		return ""
	}
	var out strings.Builder
	for i, row := range r.rows {
		ratio := r.summary(i, best, r.columns[0]).ratio
		if row.ours() || ratio == 0 || ratio > 0.97 {
			continue
		}
		fmt.Fprintf(&out, "- **%s**: %s times. %s\n", row.name, figure(ratio), row.why)
	}
	if out.Len() == 0 {
		return "Nothing is ahead of aside's best row.\n"
	}
	return fmt.Sprintf("Ahead of aside's best row (%s), in the first column:\n\n%s", r.rows[best].name, out.String())
}

// figure has three digits.
func figure(f float64) string {
	digits := 3
	for limit := 1.0; digits > 0 && f >= limit; limit *= 10 {
		digits--
	}
	text := strconv.FormatFloat(f, 'f', digits, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	if text == "-0" {
		return "0"
	}
	return text
}

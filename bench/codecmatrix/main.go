// Codecmatrix prints what each codec keeps of values of all kinds of types: read by the same process, by another one, and by builds in
// which the type has other fields. A cell is "kept", or "refused" with an error; one that is "changed" is a defect, and the command fails.
//
//	go run ./codecmatrix              # the tables of docs/codec-tables.md, from the directory bench
//	go run ./codecmatrix -candidates  # how other libraries, and these without what is built around them, do on the same rows
package main

import (
	"bufio"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// childEnv makes the program, or the test of this package, the other process.
const childEnv = "CODECMATRIX_READS"

func main() {
	if os.Getenv(childEnv) != "" {
		answer(os.Stdin, os.Stdout)
		return
	}
	others := flag.Bool("candidates", false, "compare libraries")
	flag.Parse()
	child, err := startChild()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer child.close()
	if *others {
		fmt.Print(candidateTable(child))
		return
	}
	page, changed := tables(child)
	fmt.Print(page)
	if changed > 0 {
		fmt.Fprintln(os.Stderr, changed, "cells are changed")
		os.Exit(1)
	}
}

// The outcomes.
const (
	kept    = "kept"
	refused = "refused"
	changed = "**changed**"
	logged  = "left out, logged"
)

// leftOut is what JSON leaves out and does not refuse: the first fill of such a type logs it.
const leftOut = "unexported field"

// builds are the columns: who reads what this build wrote.
var builds = []string{"same process", "another process", "field added", "field removed", "field renamed", "field retyped"}

func tables(c *child) (page string, bad int) {
	var b strings.Builder
	for _, codec := range []codec{asideJSON, asideCBOR} {
		fmt.Fprintf(&b, "### %s\n\n| type of the field V | %s | the error |\n|---|%s---|\n", codec.name, strings.Join(builds, " | "), strings.Repeat("---|", len(builds)))
		for i, l := range rows {
			cells, why := l.outcomes(codec, c, "rows", i)
			for n, cell := range cells {
				if cell == changed && codec.name == asideJSON.name && l.name == leftOut {
					cells[n] = logged
				} else if cell == changed {
					bad++
				}
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", l.name, strings.Join(cells, " | "), strings.ReplaceAll(why, "|", "\\|"))
		}
		b.WriteByte('\n')
	}
	bad += singles(&b, c)
	b.WriteString("\n### A field that another build gave another type\n\n| from | to | JSON | CBOR |\n|---|---|---|---|\n")
	for _, r := range retypings {
		fmt.Fprintf(&b, "| %s | %s", r.from, r.to)
		for _, codec := range []codec{asideJSON, asideCBOR} {
			cell := r.outcome(codec)
			if cell == changed {
				bad++
			}
			fmt.Fprintf(&b, " | %s", cell)
		}
		b.WriteString(" |\n")
	}
	return b.String(), bad
}

// singles writes the table of values that are no field: a codec's cell says kept if this process and another one keep the value.
func singles(b *strings.Builder, c *child) (bad int) {
	all := []codec{asideRaw, asideJSON, jsonBySonic(), asideCBOR, protobuf}
	for _, pair := range sealed {
		all = append(all, pair[1])
	}
	b.WriteString("### Values that are no field\n\nStrings, byte slices and types defined as one of them are stored by Raw, where the policy names no codec. A value is kept if this process and another one keep it.\n\n| type |")
	for _, codec := range all {
		fmt.Fprintf(b, " %s |", codec.name)
	}
	fmt.Fprintf(b, "\n|---|%s\n", strings.Repeat("---|", len(all)))
	for i, l := range alone {
		fmt.Fprintf(b, "| %s |", l.name)
		for _, codec := range all {
			cells, _ := l.outcomes(codec, c, "alone", i)
			cell := cells[0]
			if cells[1] != cell {
				cell = changed // each process keeps or refuses the same
			}
			if cell == changed {
				bad++
			}
			fmt.Fprintf(b, " %s |", cell)
		}
		b.WriteByte('\n')
	}
	return bad
}

func candidateTable(c *child) string {
	var b strings.Builder
	b.WriteString("| codec | kept | refused | changed | which are changed, in the same process |\n|---|---|---|---|---|\n")
	for _, codec := range candidates {
		count := make(map[string]int)
		var which []string
		for i, l := range rows {
			cell := crashed
			if !codec.crashes || l.name != "cycle" && l.name != "any: a list of itself" {
				cells, _ := l.outcomes(codec, c, "rows", i)
				cell = cells[0]
			}
			if count[cell]++; cell == changed || cell == crashed {
				which = append(which, l.name)
			}
		}
		for _, r := range retypings {
			cell := r.outcome(codec)
			if count[cell]++; cell == changed {
				which = append(which, r.from+" → "+r.to)
			}
		}
		note := strings.Join(which, "; ")
		if count[crashed] > 0 {
			note += " (a cycle ends the process, and so does a list of itself)"
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %s |\n", codec.name, count[kept], count[refused], count[changed]+count[crashed], note)
	}
	return b.String()
}

const crashed = "ends the process"

// A child is another process of this program, which reads values.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startChild() (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self)}
	c.cmd.Env = append(os.Environ(), childEnv+"=1", "TZ=Pacific/Kiritimati") // another local time too
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	return c, c.cmd.Start()
}

func (c *child) close() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}

// read asks the other process what it makes of a payload.
func (c *child) read(codec, table string, row int, payload []byte) (dump string, ok bool) {
	fmt.Fprintf(c.in, "%s %s %d %s\n", codec, table, row, hex.EncodeToString(append([]byte{0}, payload...)))
	line, err := c.out.ReadString('\n')
	if err != nil {
		panic(err) // the other process has ended
	}
	dump, err = strconv.Unquote(strings.TrimSpace(line[2:]))
	return dump, err == nil && line[0] == '+'
}

func answer(in io.Reader, out io.Writer) {
	r := bufio.NewReader(in)
	for {
		request, err := r.ReadString('\n')
		if err != nil {
			return
		}
		f := strings.Fields(request)
		n, _ := strconv.Atoi(f[2])
		payload, _ := hex.DecodeString(f[3])
		l := map[string][]line{"rows": rows, "alone": alone}[f[1]][n]
		codec := codecs()[strings.ReplaceAll(f[0], "_", " ")]
		v := l.fresh()
		if err := codec.unmarshal(payload[1:], v); err != nil {
			fmt.Fprintf(out, "- %q\n", err.Error())
			continue
		}
		fmt.Fprintf(out, "+ %q\n", dump(v, codec.loose))
	}
}

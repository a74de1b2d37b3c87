package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A mutant is what its file says; see the package's comment.
type mutant struct {
	path   string // of its file, for errors
	hazard int
	rule   string
	tests  []string // arguments of go test, with single spaces between them
	race   bool
	hangs  bool
	tries  int
	edits  []edit
}

// An edit replaces a text that must occur exactly once in a file.
type edit struct {
	file     string // relative to the root, with slashes
	line     int    // where the block begins in the mutant's file
	old, new string
}

// The lines that a block is made of. Git's conflict markers are longer.
const (
	blockOld = "<<<<"
	blockNew = "===="
	blockEnd = ">>>>"
)

// parse reads a mutant's file. With an error, which names the line, it returns what it has read up to there.
func parse(path, text string) (m *mutant, err error) {
	m = &mutant{path: path, tries: 1}
	lines := strings.Split(text, "\n")
	seen := map[string]int{} // the line of each header
	file, bare := "", 0      // the last file:, and its line while no block has followed
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if line == blockOld {
			e := edit{file: file, line: i + 1}
			if e.old, i, err = m.until(lines, i+1, blockNew); err != nil {
				return m, err
			}
			if e.new, i, err = m.until(lines, i+1, blockEnd); err != nil {
				return m, err
			}
			switch {
			case file == "":
				return m, m.errorf(e.line, "which file? a block follows a file: line")
			case strings.TrimSpace(e.old) == "":
				return m, m.errorf(e.line, "the old text is empty: say what to replace")
			case e.old == e.new:
				return m, m.errorf(e.line, "the new text is the old one: say what becomes of it")
			}
			m.edits = append(m.edits, e)
			bare = 0
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case !ok || value == "":
			return m, m.errorf(i+1, "%q is neither a header (name: value) nor %s", line, blockOld)
		case seen[name] > 0 && name != "test" && name != "file":
			return m, m.errorf(i+1, "there is a %s: in line %d already", name, seen[name])
		case file != "" && name != "file":
			return m, m.errorf(i+1, "%q: headers come before the first file:, and text to replace in a block, after %s", line, blockOld)
		}
		seen[name] = i + 1
		if name == "file" {
			if bare > 0 {
				break
			}
			file, bare = value, i+1
		}
		if err := m.header(i+1, name, value); err != nil {
			return m, err
		}
	}
	if bare > 0 {
		return m, m.errorf(bare, "no block follows: a line %s, the old text, %s, the new one, %s", blockOld, blockNew, blockEnd)
	}
	for _, name := range []string{"hazard", "rule", "test", "file"} {
		if seen[name] == 0 {
			return m, m.errorf(1, "there is no %s: header", name)
		}
	}
	return m, nil
}

// until returns the lines from start to the one that ends them, and where that is.
func (m *mutant) until(lines []string, start int, end string) (string, int, error) {
	for i := start; i < len(lines); i++ {
		switch lines[i] {
		case end:
			return strings.Join(lines[start:i], "\n"), i, nil
		case blockOld, blockNew, blockEnd:
			return "", 0, m.errorf(i+1, "%s where %s is due: a block is %s, the old text, %s, the new one, %s",
				lines[i], end, blockOld, blockNew, blockEnd)
		}
	}
	return "", 0, m.errorf(start, "no %s follows", end)
}

func (m *mutant) header(line int, name, value string) (err error) {
	switch name {
	case "hazard", "tries":
		to := map[string]*int{"hazard": &m.hazard, "tries": &m.tries}[name]
		if *to, err = strconv.Atoi(value); err != nil || *to < 1 {
			return m.errorf(line, "%s: %s: give a number of at least 1", name, value)
		}
	case "race", "hangs":
		to := map[string]*bool{"race": &m.race, "hangs": &m.hangs}[name]
		if *to = value == "yes"; !*to && value != "no" {
			return m.errorf(line, "%s: %s: say yes or no", name, value)
		}
	case "rule":
		m.rule = value
	case "test":
		args := strings.Fields(value)
		if strings.HasPrefix(value, "-") || strings.ContainsAny(value, "'\"`") || slices.Contains(args, "-race") {
			return m.errorf(line, "test: %s: write it like ./internal/near -run TestX$, package first, without quotes; race: yes is for -race", value)
		}
		m.tests = append(m.tests, strings.Join(args, " "))
	case "file":
		if !filepath.IsLocal(filepath.FromSlash(value)) || strings.HasSuffix(value, "_test.go") {
			return m.errorf(line, "file: %s: give the path of a file of the code, not of a test, from the root of the repository", value)
		}
	default:
		return m.errorf(line, "unknown header %q; there are hazard, rule, test, race, tries, hangs and file", name)
	}
	return nil
}

// apply returns the mutated text of each file that the mutant changes.
func (m *mutant) apply(root string) (map[string]string, error) {
	texts := map[string]string{}
	for _, e := range m.edits {
		text, ok := texts[e.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(e.file)))
			if err != nil {
				return nil, m.errorf(e.line, "%v: the code has moved on, bring this mutant up to date", err)
			}
			text = string(b)
		}
		at, last := strings.Index(text, e.old), strings.LastIndex(text, e.old)
		if at < 0 {
			return nil, m.errorf(e.line, "%s does not contain this text: the code has moved on, bring this mutant up to date", e.file)
		}
		if at != last {
			return nil, m.errorf(e.line, "%s contains this text more than once, in lines %d and %d: add lines around it, so that it is clear which one is meant",
				e.file, lineAt(text, at), lineAt(text, last))
		}
		texts[e.file] = text[:at] + e.new + text[at+len(e.old):]
	}
	return texts, nil
}

func lineAt(text string, offset int) int { return 1 + strings.Count(text[:offset], "\n") }

func (m *mutant) errorf(line int, format string, a ...any) error {
	return fmt.Errorf("%s:%d: %s", m.path, line, fmt.Sprintf(format, a...))
}

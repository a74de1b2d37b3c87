package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/gatewayz/aside"
)

// bar returns the line that shows a warming of total values: at most width columns of ASCII. A narrow terminal gets fewer details. A width of 0 is
// unknown.
func bar(what string, w aside.Warmed, total, width int) string {
	if width <= 0 {
		width = 80
	}
	width-- // some terminals begin a new line after the last column
	const least, most = 10, 40
	digits := len(strconv.Itoa(total)) // of each number, so that the bar keeps its length
	done := fmt.Sprintf(" %*d/%d", digits, w.Seen, total)
	for _, form := range []struct{ before, after string }{
		{"warming " + what + " ", done + ": " + counts(w, digits) + "  " + seconds(w.Took)},
		{"warming " + what + " ", done + "  " + seconds(w.Took)},
		{what + " ", done},
		{"", done},
	} {
		if room := min(width-len(form.before)-len(form.after)-len("[]"), most); room >= least {
			filled := 0
			if total > 0 {
				filled = min(room*w.Seen/total, room)
			}
			return form.before + "[" + strings.Repeat("#", filled) + strings.Repeat("-", room-filled) + "]" + form.after
		}
	}
	done = strings.TrimSpace(done)
	return done[:min(len(done), width)]
}

// summary is the line at the end of a warming.
func summary(what string, w aside.Warmed, total int, err error) string {
	switch {
	case w.Elsewhere:
		return what + " are not warmed here: another process warms them"
	case err != nil:
		return fmt.Sprintf("warming stopped after %s with %d of %d %s: %v", short(w.Took), w.Loaded+w.Fresh, total, what, err)
	default:
		return fmt.Sprintf("warmed %d %s in %s: %s", w.Seen, what, short(w.Took), counts(w, 0))
	}
}

func counts(w aside.Warmed, digits int) string {
	text := fmt.Sprintf("%*d loaded, %*d fresh, %*d failed", digits, w.Loaded, digits, w.Fresh, digits, w.Failed)
	if w.NotFound > 0 {
		text += fmt.Sprintf(", %d not found", w.NotFound)
	}
	return text
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return seconds(d)
}

// A console is the output for log lines. On a terminal, it keeps a bar below them.
type console struct {
	out   io.Writer
	width func() int // of the terminal; nil if out is none

	mu  sync.Mutex
	bar string // on the terminal's last line; guarded by mu
}

func newConsole(out io.Writer) *console {
	c := &console{out: out}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		c.width = func() int {
			width, _, err := term.GetSize(int(file.Fd()))
			if err != nil {
				return 0
			}
			return width
		}
	}
	return c
}

// Write writes whole lines above the bar.
func (c *console) Write(lines []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	bar := c.bar
	if bar == "" {
		return c.out.Write(lines)
	}
	c.show("")
	n, err := c.out.Write(lines)
	c.show(bar)
	return n, err
}

// draw replaces the bar.
func (c *console) draw(bar string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.show(bar)
}

// end replaces the bar by a line that stays.
func (c *console) end(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.show(line)
	c.bar = ""
	_, _ = io.WriteString(c.out, "\n")
}

// show overwrites the last line with spaces and returns: that works on every terminal. The caller holds mu. Errors have no consequence: the bar is
// for a person who looks at it.
func (c *console) show(bar string) {
	rest := strings.Repeat(" ", max(0, len(c.bar)-len(bar)))
	if bar == "" && rest != "" {
		rest += "\r"
	}
	_, _ = io.WriteString(c.out, "\r"+bar+rest)
	c.bar = bar
}

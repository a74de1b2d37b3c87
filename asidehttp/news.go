package asidehttp

import (
	"log/slog"
	"time"
)

// news collects what a Revalidator will log: not one line for each target, and no line under the lock of the backlog, where a slow handler would
// block all callers. The lock guards it.
type news struct {
	lost     int       // the number of targets lost since the last line about losses
	tags     []string  // the first of these targets
	paths    []string  // the first of these targets
	cause    error     // why the first of these targets was lost
	attempts int       // the requests for the first of these targets
	lostAt   time.Time // of the last line about losses
	failing  string    // why the front end has begun to fail; empty without news
	failedAt time.Time // of the last line about a front end that fails
}

// newsPause is the time between two lines of a kind.
const newsPause = 10 * time.Second

// lose adds a lost target to the next line.
func (n *news) lose(d *delivery, cause error) {
	if n.lost++; n.lost == 1 {
		n.cause, n.attempts = cause, d.attempts
	}
	if len(n.tags)+len(n.paths) >= mostNamed {
		return
	}
	if d.target.Tag != "" || d.target.Path == "" {
		n.tags = append(n.tags, shortened(d.target.Tag))
	}
	if d.target.Path != "" {
		n.paths = append(n.paths, shortened(d.target.Path))
	}
}

// take returns the news to log now, and removes them. Each kind of line is due once in newsPause; the last call returns all losses at once. later is
// the time until the remaining losses are due, or 0 if there are none.
func (n *news) take(now time.Time, last bool) (due news, later time.Duration) {
	wait := n.lostAt.Add(newsPause).Sub(now)
	switch {
	case n.lost > 0 && wait > 0 && !last:
		later = wait
	case n.lost > 0:
		due = *n
		*n = news{lostAt: now, failing: n.failing, failedAt: n.failedAt}
	}
	due.failing = ""
	if n.failing != "" && now.Sub(n.failedAt) >= newsPause {
		due.failing, n.failedAt = n.failing, now
	}
	n.failing = "" // a failure that was not due is dropped: logged later, it would not be news
	return due, later
}

// log writes a line for each kind of news.
func (n *news) log(logger *slog.Logger) {
	if n.failing != "" {
		logger.Warn("asidehttp: revalidation requests failing, will retry", "error", n.failing)
	}
	if n.lost > 0 {
		logger.Error("asidehttp: revalidations given up",
			"lost", n.lost, "tags", quoted(n.tags), "paths", quoted(n.paths), "attempts", n.attempts, "error", n.cause)
	}
}

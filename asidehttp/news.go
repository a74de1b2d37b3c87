package asidehttp

import (
	"log/slog"
	"time"
)

// news collects what a Revalidator is to log. It is not logged under the lock, where a slow handler would block all callers, and not for each
// target. Its fields are guarded by the lock.
type news struct {
	lost     int // targets
	tags     []string
	paths    []string // the first of them
	cause    error    // of the first
	attempts int      // of the first
	failing  string   // why the front end has begun to fail
	lostAt   time.Time
	failedAt time.Time // when the last lines were written
}

const newsPause = 10 * time.Second // between two lines of a kind

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

// take removes the news that are due: each kind of line once in newsPause, unless it is the last time. It returns the time until more are due, 0
// if there are none.
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
	n.failing = "" // a short failure some seconds ago is not logged later
	return due, later
}

func (n *news) log(logger *slog.Logger) {
	if n.failing != "" {
		logger.Warn("asidehttp: revalidation requests failing, will retry", "error", n.failing)
	}
	if n.lost > 0 {
		logger.Error("asidehttp: revalidations given up",
			"lost", n.lost, "tags", quoted(n.tags), "paths", quoted(n.paths), "attempts", n.attempts, "error", n.cause)
	}
}

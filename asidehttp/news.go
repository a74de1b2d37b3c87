package asidehttp

import "time"

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

// report logs the collected news, each kind of line once in newsPause unless it is the last report. It returns the time until the next report, 0
// if there is none.
func (r *Revalidator) report(last bool) (later time.Duration) {
	r.mu.Lock()
	n, now := r.news, time.Now()
	lost, failing := n.lost > 0, n.failing != ""
	if wait := n.lostAt.Add(newsPause).Sub(now); lost && wait > 0 && !last {
		lost, later = false, wait
	}
	if lost {
		r.news = news{lostAt: now, failing: n.failing, failedAt: n.failedAt}
	}
	if failing {
		r.news.failing = "" // a short failure some seconds ago is not logged later
		if failing = now.Sub(n.failedAt) >= newsPause; failing {
			r.news.failedAt = now
		}
	}
	r.mu.Unlock()
	if failing {
		r.o.Logger.Warn("asidehttp: revalidation requests failing, will retry", "error", n.failing)
	}
	if lost {
		r.o.Logger.Error("asidehttp: revalidations given up",
			"lost", n.lost, "tags", quoted(n.tags), "paths", quoted(n.paths), "attempts", n.attempts, "error", n.cause)
	}
	return later
}

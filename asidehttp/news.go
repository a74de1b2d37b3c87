package asidehttp

import "time"

// news is what a Revalidator has to log: not under its lock, where a slow handler would hold up everybody, and not for each target.
// Its fields are guarded by the lock.
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

const (
	newsPause  = 10 * time.Second // between two lines of a kind
	mostNamed  = 10               // targets in a line
	mostOfName = 128              // bytes of each
)

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

// report logs what there is to log, each kind of line once in newsPause unless it is the last time, and returns in how long there is
// more; 0 if there is none.
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
		r.news.failing = "" // that it has failed for a moment some seconds ago is nothing to tell
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

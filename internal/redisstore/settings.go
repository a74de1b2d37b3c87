package redisstore

import (
	"cmp"
	"math"
	"net"
	"time"

	"github.com/redis/rueidis"
)

const (
	dialTimeout  = 3 * time.Second        // of one attempt to connect, or to reach a lost server again
	firstRetry   = 50 * time.Millisecond  // after a failed attempt; doubles up to
	slowestRetry = time.Second            // or, after a refusal that takes somebody to mend it, to
	slowRefused  = 5 * time.Second        //
	recheckPause = 5 * time.Second        // how often a command that is refused has the server examined
	writeTimeout = 500 * time.Millisecond // what a connection may be silent while replies are due
	keepAlive    = 500 * time.Millisecond // how often an idle connection is tried
	tripAfter    = 3                      // failures in a row that stop the asking
	steady       = 10 * time.Second       // a session that was in use for so long has settled: see keep
	abandonAfter = time.Second            // how long Close waits for an attempt to connect that has been cut off
)

// Silence is how long a server can say nothing, at most, before a connection with these options is given up: an idle one is
// tried after one to two intervals, and then has so long to answer. It is negative where none is ever tried.
func Silence(opt rueidis.ClientOption) time.Duration {
	every := cmp.Or(opt.Dialer.KeepAlive, keepAlive)
	if every < 0 {
		return -1
	}
	const ever = math.MaxInt64 / 4 // which no sum of these overflows
	return 2*min(every, ever) + min(cmp.Or(opt.ConnWriteTimeout, writeTimeout), ever)
}

// settled is opt as every client here is made.
func withDefaults(opt rueidis.ClientOption) rueidis.ClientOption {
	if !opt.DisableCache {
		opt.ClientTrackingOptions = []string{"OPTOUT"} // every read is tracked, and none opts out: see tracking
	}
	opt.DisableRetry = true // rueidis would retry until the context ends: one answer, or none
	if opt.ClientSetInfo == nil {
		opt.ClientSetInfo = rueidis.DisableClientSetInfo // one permission less to ask for
	}
	if opt.PipelineMultiplex == 0 {
		opt.PipelineMultiplex = -1 // one connection: all keys of a batch in one pipeline, and pushes in order with replies
	}
	opt.ConnWriteTimeout = cmp.Or(opt.ConnWriteTimeout, writeTimeout)
	opt.Dialer.KeepAlive = cmp.Or(opt.Dialer.KeepAlive, keepAlive)
	opt.Dialer.Timeout = cmp.Or(opt.Dialer.Timeout, dialTimeout)
	// Sentinels are dialled with a Dialer of their own. Without KeepAlive, one that hangs would be waited for without end.
	opt.Sentinel.Dialer.KeepAlive = cmp.Or(opt.Sentinel.Dialer.KeepAlive, keepAlive)
	opt.Sentinel.Dialer.Timeout = cmp.Or(opt.Sentinel.Dialer.Timeout, dialTimeout)
	return opt
}

// isSentinel reports whether a client of Sentinels dials one, or else the server that they name. It uses a Dialer for each, and tells
// the function that dials nothing else.
func isSentinel(opt rueidis.ClientOption, d *net.Dialer) bool {
	return d.Timeout == opt.Sentinel.Dialer.Timeout
}

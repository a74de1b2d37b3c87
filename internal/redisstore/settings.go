package redisstore

import (
	"cmp"
	"math"
	"net"
	"time"

	"github.com/redis/rueidis"
)

const (
	dialTimeout  = 3 * time.Second        // of one attempt to connect, or to probe a lost server
	firstRetry   = 50 * time.Millisecond  // pause after a failed attempt; doubles up to slowestRetry
	slowestRetry = time.Second            //
	slowRefused  = 5 * time.Second        // in place of slowestRetry, after an error that a person has to fix
	recheckPause = 5 * time.Second        // least time between two examinations of a server that refuses commands
	writeTimeout = 500 * time.Millisecond // how long a connection may be silent while replies are due
	keepAlive    = 500 * time.Millisecond // how often an idle connection is probed
	tripAfter    = 3                      // failures in a row that trip the breaker
	steady       = 10 * time.Second       // a session that was in use for so long resets the pause: see keep
	abandonAfter = time.Second            // how long Close waits for an attempt to connect that has been cut off
)

// Silence is how long a server can be silent, at most, before a connection with these options is given up: an idle connection is
// probed after one to two intervals, and then has writeTimeout to answer. It is negative where connections are never probed.
func Silence(opt rueidis.ClientOption) time.Duration {
	every := cmp.Or(opt.Dialer.KeepAlive, keepAlive)
	if every < 0 {
		return -1
	}
	const ever = math.MaxInt64 / 4 // sums of these do not overflow
	return 2*min(every, ever) + min(cmp.Or(opt.ConnWriteTimeout, writeTimeout), ever)
}

// withDefaults is opt as every client here is made.
func withDefaults(opt rueidis.ClientOption) rueidis.ClientOption {
	if !opt.DisableCache {
		opt.ClientTrackingOptions = []string{"OPTOUT"} // every read is tracked, and none opts out: see tracking
	}
	opt.DisableRetry = true // rueidis would retry until the context ends: one answer, or none
	if opt.ClientSetInfo == nil {
		opt.ClientSetInfo = rueidis.DisableClientSetInfo // needs one permission less
	}
	if opt.PipelineMultiplex == 0 {
		opt.PipelineMultiplex = -1 // one connection: all keys of a batch in one pipeline, and pushes in order with replies
	}
	opt.ConnWriteTimeout = cmp.Or(opt.ConnWriteTimeout, writeTimeout)
	opt.Dialer.KeepAlive = cmp.Or(opt.Dialer.KeepAlive, keepAlive)
	opt.Dialer.Timeout = cmp.Or(opt.Dialer.Timeout, dialTimeout)
	// Sentinels are dialled with a Dialer of their own. Without KeepAlive, a Sentinel that hangs would be waited for without end.
	opt.Sentinel.Dialer.KeepAlive = cmp.Or(opt.Sentinel.Dialer.KeepAlive, keepAlive)
	opt.Sentinel.Dialer.Timeout = cmp.Or(opt.Sentinel.Dialer.Timeout, dialTimeout)
	return opt
}

// isSentinel reports whether a client of Sentinels dials a Sentinel, and not the server that they name. Such a client uses a
// Dialer for each, and passes nothing else to the dial function that tells them apart.
func isSentinel(opt rueidis.ClientOption, d *net.Dialer) bool {
	return d.Timeout == opt.Sentinel.Dialer.Timeout
}

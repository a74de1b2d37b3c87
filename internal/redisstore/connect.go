package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/gatewayz/aside/internal/guard"
	"github.com/redis/rueidis"
)

// A connector is the settings by which clients of one server are made, and what is known of its addresses.
type connector struct {
	options   rueidis.ClientOption
	addrs     []string       // of the one server, where it has several; empty: those of the options
	at        atomic.Int32   // the number of the address in use, or to be tried next, modulo their number
	unreached unreached      // Sentinels
	hanging   *guard.Hanging // dials, of all links
}

// connect makes a client, retrying until ctx ends; then it reports false.
func (l *link) connect(ctx context.Context, opt rueidis.ClientOption, of purpose) (s *session, ok bool) {
	failed := func(error) {}
	if of.first {
		failed = func(cause error) {
			l.at.Add(1)
			l.down(cause)
		}
	}
	ok = retry(ctx, failed, func() (err error) {
		s, err = l.try(ctx, opt, of)
		return err
	})
	return s, ok
}

// try makes a client, or fails, or is cut off when ctx ends.
func (l *link) try(ctx context.Context, opt rueidis.ClientOption, of purpose) (*session, error) {
	type made struct {
		session *session
		err     error
	}
	result := make(chan made, 1)
	go func() {
		s, err := l.attempt(ctx, opt, of)
		result <- made{s, err}
	}()
	select {
	case r := <-result:
		return r.session, r.err
	case <-ctx.Done():
	}
	closeIfMade := func(r made) {
		if r.err == nil {
			r.session.stopProbes()
			r.session.client.Close()
		}
	}
	// The connections of the attempt are closed now. So it ends at once, unless a function of the user's, such as DialFn, blocks:
	// no such function has to heed a context.
	select {
	case r := <-result:
		closeIfMade(r)
	case <-time.After(abandonAfter):
		go func() { closeIfMade(<-result) }()
	}
	return nil, ctx.Err()
}

// attempt makes a client, or fails. NewClient takes no context, and would wait long for a server that accepts and does not answer.
// So its connections are closed when ctx ends before the client is made.
func (l *link) attempt(ctx context.Context, given rueidis.ClientOption, of purpose) (s *session, err error) {
	opt := given
	trying, over := context.WithCancel(ctx)
	acc := newAccount(given)
	var made atomic.Bool // from then on, rueidis closes its connections, and lets commands in progress finish
	defer func() {
		made.Store(err == nil)
		over() // in any case, or ctx would keep references to the connections of all clients ever made
	}()
	own := &session{tracked: !opt.DisableCache, places: newPlaces(opt), bulk: newBulk()}
	own.suspect, own.silence, own.wake = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
	s = own
	if opt.Sentinel.Dialer.Timeout == opt.Dialer.Timeout {
		opt.Sentinel.Dialer.Timeout++ // isSentinel tells them apart by this
	}
	if opt.AuthCredentialsFn != nil {
		opt.AuthCredentialsFn = acc.credentials(opt.AuthCredentialsFn)
	}
	dial := dialer(opt, l.hanging)
	opt.DialCtxFn = func(dialing context.Context, dst string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		// Dials of a client of Sentinels to Sentinels, and to the server that they name next, have no deadline. Nor has the dial
		// of the subscribing connection, where the protocol needs a separate one.
		if _, inACall := dialing.Deadline(); made.Load() && (inACall || of.first && own.client.Mode() == rueidis.ClientModeStandalone) {
			return nil, errBroken // a caller has met a broken connection, and would wait for a new one
		}
		dialing, cancel := context.WithTimeout(dialing, atLeast(d.Timeout))
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		sentinel := opt.Sentinel.MasterSet != "" && isSentinel(opt, d)
		conn, err := dial(dialing, dst, d, config)
		if err == nil && opt.Sentinel.MasterSet != "" && !sentinel && !own.mayUse(dst) {
			conn = &successor{Conn: conn, found: func() { own.leave(l) }}
		}
		if c, ok := conn.(*guarded); ok && !made.Load() {
			c.replies, c.sentinel = &acc.replies, sentinel
		}
		if err != nil && opt.Sentinel.MasterSet != "" && !sentinel {
			err = &errPrimary{err}
		}
		if opt.Sentinel.MasterSet != "" {
			l.unreached.note(dst, err)
		}
		if err == nil && !made.Load() {
			l.first.step()
			context.AfterFunc(trying, func() {
				if !made.Load() {
					conn.Close()
				}
			})
		}
		return conn, err
	}
	// ShuffleInit sorts in place. A client of an earlier attempt that is not closed yet may be reading the slice.
	opt.InitAddress = l.unreached.last(opt.InitAddress)
	if n := len(l.addrs); n > 0 {
		opt.InitAddress = []string{l.addrs[int(l.at.Load())%n]}
	}
	opt.ConnLifetime = 0 // see renewal.go
	if !own.tracked {
		// Nothing else reports that a connection has broken.
		opt.DialCtxFn = onClose(opt.DialCtxFn, func(dst string) {
			if made.Load() && (own.primary == "" || own.primary == dst) {
				own.lost(l, nil)
			}
		})
	} else {
		opt.NewCacheStoreFn = func(rueidis.CacheStoreOption) rueidis.CacheStore {
			w := l.newConn(own, func(cause error) { own.lost(l, cause) })
			own.mu.Lock()
			defer own.mu.Unlock()
			own.conns = append(own.conns, w)
			return &carrier{trackedConn: w}
		}
	}
	s.client, err = rueidis.NewClient(opt)
	if err == nil && s.client.Mode() == rueidis.ClientModeSentinel {
		if err = own.settle(of); err != nil {
			s.client.Close()
		}
	}
	if err == nil {
		l.first.step()
		err = l.probe(ctx, s.client)
		if err == nil && !opt.DisableCache {
			l.first.step()
			err = l.probeTracking(ctx, own)
		}
		if err == nil && of.first {
			l.first.step()
			err = l.readWatermark(ctx, s.client)
			own.sure = l.watermark.last.Load()
		}
		if err != nil {
			own.stopProbes()
			s.client.Close()
		}
	}
	if errors.Is(err, rueidis.ErrNoCache) && !opt.DisableCache {
		l.untracked.Store(true)
		given.DisableCache = true
		return l.attempt(ctx, given, of)
	}
	if err == nil && !opt.DisableCache {
		l.untracked.Store(false)
	}
	return s, acc.explain(err)
}

// probe runs onConnect, with a deadline that leaves time for a dial, and a tracked read on each connection: no caller is to find
// out that a connection has to be made.
func (l *link) probe(ctx context.Context, c rueidis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := l.onConnect(ctx, c); err != nil || !l.Tracked() {
		return err
	}
	return l.trackAll(ctx, c)
}

func (l *link) probeTracking(ctx context.Context, own *session) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return l.probePush(ctx, own)
}

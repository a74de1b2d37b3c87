//go:build !nostrategies

package main

import "github.com/gatewayz/aside"

// This is what a cache has to have for the windows of a schedule. finds_test.go builds the check without it, for older commits.

// open gives a policy its windows.
func (w *windows) open(p *aside.Policy) {
	p.TTL, p.Stale, p.StaleIfError, p.SoftTimeout, p.RefreshAhead = w.TTL, w.Stale, w.StaleIfError, w.SoftTimeout, w.RefreshAhead
}

func (a *tally) addStrategies(l aside.LabelMetrics) {
	a.Refreshes += l.Refreshes
	a.RefreshesSkipped += l.RefreshesSkipped
	a.RefreshErrors += l.RefreshErrors
	a.StaleOnError += l.StaleOnError
	a.SoftTimeouts += l.SoftTimeouts
	a.NotModified += l.NotModified
}

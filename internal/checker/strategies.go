//go:build !nostrategies

package main

import (
	"time"

	"github.com/gatewayz/aside"
)

// This is what a cache has to have for the windows of a schedule. finds_test.go builds the check without it, for older commits.

// open gives a policy its windows.
func (w *windows) open(p *aside.Policy) {
	p.TTL, p.Stale, p.StaleIfError, p.SoftTimeout, p.RefreshAhead = w.TTL, w.Stale, w.StaleIfError, w.SoftTimeout, w.RefreshAhead
}

// movePlaces has each of three groups keep its values elsewhere than is usual: in memory alone, in Redis alone, and in memory for a moment.
func movePlaces() {
	for i := range groups {
		p := &groups[i].policy
		switch {
		case i == inMemoryAlone:
			p.Name, p.Place = "memory", aside.PlaceMemory
		case p.Name == large.Name:
			p.Place = aside.PlaceRedis
		case p.Name == items.Name:
			p.MemoryTTL = 200 * time.Millisecond
		}
	}
}

func (a *tally) addStrategies(l aside.LabelMetrics) {
	a.Refreshes += l.Refreshes
	a.RefreshesSkipped += l.RefreshesSkipped
	a.RefreshErrors += l.RefreshErrors
	a.StaleOnError += l.StaleOnError
	a.SoftTimeouts += l.SoftTimeouts
	a.NotModified += l.NotModified
}

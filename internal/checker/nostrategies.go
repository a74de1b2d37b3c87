//go:build nostrategies

package main

import "github.com/gatewayz/aside"

func (*windows) open(*aside.Policy) { panic("this cache has no windows: choose even seeds") }

func (*tally) addStrategies(aside.LabelMetrics) {}

//go:build nostrategies

package main

import (
	"context"
	"errors"

	"github.com/gatewayz/aside"
)

func (*windows) open(*aside.Policy) { panic("this cache has no windows: choose even seeds") }

func movePlaces() {}

func (*tally) addStrategies(aside.LabelMetrics) {}

var errNotModified = errors.New("not modified")

type priors map[int]uint32

func (*worker) priorsOf(context.Context, keySet) priors { return nil }

func (priors) answer(context.Context, int, uint32, bool) bool { return false }

func (*worker) requireETag(aside.Result[value], int) {}

func (*tape) set(int) {}

//go:build race

package asidetest

// RaceDetector is whether the race detector slows everything down.
const RaceDetector = true

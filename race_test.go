//go:build race

package aside_test

// raceDetector is whether the race detector slows everything down.
const raceDetector = true

//go:build !race

package aside_test

const raceDetector = false

//go:build !race

package asideotel_test

const raceDetector = false

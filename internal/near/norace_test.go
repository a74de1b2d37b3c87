//go:build !race

package near

const raceDetector = false

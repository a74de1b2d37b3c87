//go:build race

package near

const raceDetector = true

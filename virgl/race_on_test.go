//go:build race

package virgl

const raceDetector = true

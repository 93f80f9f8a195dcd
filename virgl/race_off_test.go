//go:build !race

package virgl

const raceDetector = false

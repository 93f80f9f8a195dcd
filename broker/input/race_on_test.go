//go:build race

package input

// raceEnabled says whether this build has the race detector, which allocates.
const raceEnabled = true

//go:build race

package broker_test

// raceEnabled says that this build has the race detector, which allocates.
const raceEnabled = true

// Package inguest marks tests that need the devices of a guest. TestGuest of the
// program's package boots one and runs them there.
package inguest

import (
	"os"
	"testing"
)

// Variable is set in the environment of tests that run inside a guest.
const Variable = "GPUBROKER_IN_GUEST"

// Need skips a test anywhere else.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(Variable) == "" {
		t.Skip("needs virtio-gpu devices: TestGuest of cmd/gpubroker-guest runs it in a guest")
	}
}

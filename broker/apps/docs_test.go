package apps

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestSpecification: docs/link.md says this package's numbers.
func TestSpecification(t *testing.T) {
	b, err := os.ReadFile("../../docs/link.md")
	if err != nil {
		t.Fatal(err)
	}
	l := Limits{}.filled()
	for _, s := range []string{
		fmt.Sprintf("| DefaultPort | %d |", DefaultPort),
		fmt.Sprintf("gives a connection %.0f seconds", l.Handshake.Seconds()),
		fmt.Sprintf("(for at most %.0f seconds)", l.Linger.Seconds()),
		fmt.Sprintf("together (%d MiB)", l.Queued>>20),
	} {
		if !strings.Contains(string(b), s) {
			t.Errorf("%q is not said", s)
		}
	}
}

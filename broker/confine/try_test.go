package confine

import (
	"os"
	"os/exec"
	"testing"
)

// TestTry: the process itself keeps everything.
func TestTry(t *testing.T) {
	if !Supported() {
		t.Skip("this kernel has no landlock or no seccomp, or not all of it")
	}
	for range 20 {
		if v, err := Try(); err != nil || v < 6 {
			t.Fatalf("version %d, %v", v, err)
		}
	}
	if _, err := os.ReadDir("/"); err != nil {
		t.Error(err)
	}
	if err := exec.Command("/bin/true").Run(); err != nil {
		t.Error(err)
	}
}

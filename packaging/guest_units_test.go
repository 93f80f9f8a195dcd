package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGuestUnits: systemd has nothing to say about the units for guests.
func TestGuestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skipf("systemd is not here to check the units: %v", err)
	}
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"gpubroker-guest.service", "gpubroker-guest.socket"} {
		body, err := os.ReadFile(filepath.Join("guest", name))
		if err != nil {
			t.Fatal(err)
		}
		// It is not installed here; /bin/true takes any options.
		body = bytes.ReplaceAll(body, []byte("/usr/bin/gpubroker-guest"), []byte("/bin/true"))
		body = regexp.MustCompile(`(?m)^Documentation=.*$`).ReplaceAll(body, nil)
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, body, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	cmd := exec.Command(analyze, append([]string{"verify", "--user", "--man=no"}, files...)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
	out, err := cmd.CombinedOutput()
	for _, line := range strings.Split(string(out), "\n") {
		if strings.Contains(line, "gpubroker") {
			t.Error(line)
		}
	}
	if err != nil && t.Failed() {
		t.Error(err)
	}
}

// Package packaging has no code: it checks the files that packages install.
package packaging

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const descriptor = "40-gpubroker.json"

// VHostUserBackend of QEMU docs/interop/vhost-user.json.
type backend struct {
	Description string   `json:"description"`
	Type        string   `json:"type"`
	Binary      string   `json:"binary"`
	Tags        []string `json:"tags"`
}

func TestDescriptor(t *testing.T) {
	p, err := os.ReadFile(descriptor)
	if err != nil {
		t.Fatal(err)
	}
	var b backend
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		t.Fatal(err)
	}
	if d.More() {
		t.Error("the file has more than one value")
	}
	if b.Type != "gpu" || b.Description == "" {
		t.Errorf("type %q, description %q", b.Type, b.Description)
	}
	if !filepath.IsAbs(b.Binary) || filepath.Base(b.Binary) != "gpubroker" {
		t.Errorf("binary %q, want an absolute path", b.Binary)
	}
	// The specification orders files by two digits; QEMU's own has 50.
	if !regexp.MustCompile(`^[0-4][0-9]-[a-z-]+\.json$`).MatchString(descriptor) {
		t.Errorf("name %q does not come before 50-", descriptor)
	}
}

// TestCapabilities runs what libvirt runs first.
func TestCapabilities(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "gpubroker")
	build := exec.Command("go", "build", "-o", bin, "../cmd/gpubroker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, "--print-capabilities")
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin"} // as bare as a daemon's
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("--print-capabilities: %v", err)
	}
	// VHostUserBackendCapabilities, and GPU's features.
	var c struct {
		Type     string   `json:"type"`
		Features []string `json:"features"`
	}
	d := json.NewDecoder(bytes.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || d.More() {
		t.Fatalf("%q: %v", out, err)
	}
	if c.Type != "gpu" || c.Features == nil {
		t.Errorf("capabilities %s", out)
	}
	for _, f := range c.Features {
		if !slices.Contains([]string{"render-node", "virgl"}, f) {
			t.Errorf("feature %q is not in the specification", f)
		}
	}
	if !slices.Contains(c.Features, "virgl") {
		t.Errorf("features %q lack virgl: libvirt would not choose gpubroker for accel3d", c.Features)
	}
}

// TestReadme keeps the documentation in step with the files.
func TestReadme(t *testing.T) {
	p, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{descriptor, "/usr/share/qemu/vhost-user/", "--print-capabilities", "--fd=", "--virgl", "--render-node="} {
		if !strings.Contains(string(p), want) {
			t.Errorf("README.md does not mention %s", want)
		}
	}
}

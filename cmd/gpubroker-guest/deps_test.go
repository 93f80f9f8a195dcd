package main

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestStatic builds the program as it is shipped: it must run in any guest, so it links
// no C library and nothing that loads one.
func TestStatic(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	for _, pkg := range strings.Fields(string(out)) {
		switch {
		case strings.Contains(pkg, "purego"), strings.Contains(pkg, "go-gl"), strings.HasPrefix(pkg, "go.uber.org/zap"),
			strings.HasSuffix(pkg, "gpubroker/virgl"), strings.HasSuffix(pkg, "gpubroker/gbm"), strings.HasSuffix(pkg, "gpubroker/broker"):
			t.Errorf("%s is linked", pkg)
		}
	}
	bin := filepath.Join(t.TempDir(), "gpubroker-guest")
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the program has a segment %v", p.Type)
		}
	}
}

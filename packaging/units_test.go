package packaging

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unit reads the settings of a unit; a setting may come several times.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	f, err := os.Open(filepath.Join("systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	out := map[string][]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), "="); ok && !strings.HasPrefix(k, "#") {
			out[k] = append(out[k], v)
		}
	}
	return out
}

// program builds gpubroker.
func program(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "gpubroker")
	build := exec.Command("go", "build", "-o", bin, "../cmd/gpubroker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// TestUnits: systemd has nothing to say about the units, and their names for sockets are
// those that gpubroker knows.
func TestUnits(t *testing.T) {
	for name, want := range map[string]string{"gpubroker@.socket": "gpu", "gpubroker-input@.socket": "input"} {
		if got := unit(t, name)["FileDescriptorName"]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %s", name, got, want)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skipf("systemd is not here to check the units: %v", err)
	}
	dir := t.TempDir()
	bin := program(t)
	for _, name := range []string{"gpubroker@.socket", "gpubroker-input@.socket", "gpubroker@.service"} {
		body, err := os.ReadFile(filepath.Join("systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		body = bytes.ReplaceAll(body, []byte("/usr/bin/gpubroker"), []byte(bin))
		body = regexp.MustCompile(`(?m)^Documentation=.*$`).ReplaceAll(body, nil) // not installed here
		if err := os.WriteFile(filepath.Join(dir, strings.Replace(name, "@", "@vm", 1)), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(analyze, "verify", "--user", "--man=no", filepath.Join(dir, "gpubroker@vm.service"), filepath.Join(dir, "gpubroker@vm.socket"), filepath.Join(dir, "gpubroker-input@vm.socket"))
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
	out, err := cmd.CombinedOutput()
	for _, line := range strings.Split(string(out), "\n") {
		if strings.Contains(line, "gpubroker") { // other units of this machine are none of ours
			t.Errorf("%s", line)
		}
	}
	if err != nil && t.Failed() {
		t.Error(err)
	}
}

// callSet reads the system calls of a set of systemd, with those that it includes.
func callSet(t *testing.T, set string, into map[string]bool) {
	t.Helper()
	out, err := exec.Command("systemd-analyze", "--no-pager", "syscall-filter", set).Output()
	if err != nil {
		t.Fatalf("%s: %v", set, err)
	}
	for _, word := range strings.Fields(regexp.MustCompile(`(?m)#.*$`).ReplaceAllString(string(out), "")) {
		switch {
		case word == set:
		case strings.HasPrefix(word, "@"):
			callSet(t, word, into)
		default:
			into[word] = true
		}
	}
}

// TestSyscallFilter: what gpubroker and Mesa do here is what the service may do. Each
// probe of smoke is a process like the service's.
func TestSyscallFilter(t *testing.T) {
	for _, name := range []string{"strace", "systemd-analyze"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s: %v", name, err)
		}
	}
	allowed := map[string]bool{}
	for _, setting := range unit(t, "gpubroker@.service")["SystemCallFilter"] {
		list, deny := strings.CutPrefix(setting, "~")
		for _, word := range strings.Fields(list) {
			set := map[string]bool{word: true}
			if strings.HasPrefix(word, "@") {
				set = map[string]bool{}
				callSet(t, word, set)
			}
			for call := range set {
				if deny {
					delete(allowed, call)
				} else {
					allowed[call] = true
				}
			}
		}
	}
	if len(allowed) < 200 || allowed["ptrace"] || allowed["mount"] || !allowed["ioctl"] {
		t.Fatalf("%d calls are allowed: %v", len(allowed), allowed)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", "-f", "-qq", "-e", "signal=none", "-o", trace, program(t), "smoke", "--json")
	cmd.Env = append(os.Environ(), "LIBGL_ALWAYS_SOFTWARE=1")
	out, err := cmd.Output()
	var rep struct {
		Rows []struct{ Name, State string }
	}
	if json.Unmarshal(out, &rep) != nil {
		t.Skipf("strace does not trace here: %v", err)
	}
	drew := false
	for _, r := range rep.Rows {
		drew = drew || r.Name == "virgl.draw" && r.State == "ok"
	}
	if !drew {
		t.Errorf("nothing was drawn: %s", out)
	}
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	call := regexp.MustCompile(`^\d+ +([a-z0-9_]+)\(`)
	seen := map[string]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if m := call.FindStringSubmatch(lines.Text()); m != nil {
			seen[m[1]]++
		}
	}
	if len(seen) < 40 {
		t.Fatalf("only %d calls were seen: %v", len(seen), seen)
	}
	var denied []string
	for name, n := range seen {
		if !allowed[name] {
			denied = append(denied, fmt.Sprintf("%s (%d times)", name, n))
		}
	}
	slices.Sort(denied)
	if len(denied) > 0 {
		t.Errorf("the service may not: %s", strings.Join(denied, ", "))
	}
}

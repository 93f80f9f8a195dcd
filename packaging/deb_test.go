package packaging

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// buildDeb builds the package, once for all tests, and unpacks it.
func buildDeb(t *testing.T) (deb, root string) {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skipf("Debian packages are built where there is dpkg: %v", err)
	}
	dir := t.TempDir()
	cmd := exec.Command("deb/build.sh", dir)
	cmd.Env = append(os.Environ(), "VERSION=1.2.3", "MAINTAINER=A Test <test@example.org>")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	deb, root = strings.TrimSpace(string(out)), filepath.Join(dir, "root")
	output(t, "dpkg-deb", "-x", deb, root)
	return deb, root
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestDeb: the package builds, has what it should have where it should be, and what it
// says of itself is true.
func TestDeb(t *testing.T) {
	deb, root := buildDeb(t)
	field := func(name string) string { return strings.TrimSpace(output(t, "dpkg-deb", "-f", deb, name)) }
	if field("Package") != "gpubroker" || field("Version") != "1.2.3" || field("Maintainer") != "A Test <test@example.org>" ||
		field("Architecture") != strings.TrimSpace(output(t, "dpkg", "--print-architecture")) {
		t.Errorf("control data:\n%s", output(t, "dpkg-deb", "-f", deb))
	}
	for _, want := range []string{
		"usr/bin/gpubroker", "usr/share/qemu/vhost-user/" + descriptor,
		"usr/lib/systemd/user/gpubroker@.service", "usr/lib/systemd/user/gpubroker@.socket", "usr/lib/systemd/user/gpubroker-input@.socket",
		"usr/share/man/man1/gpubroker.1.gz", "usr/share/man/man1/gpubroker-serve.1.gz", "usr/share/man/man1/gpubroker-smoke.1.gz",
		"usr/share/bash-completion/completions/gpubroker", "usr/share/zsh/vendor-completions/_gpubroker", "usr/share/fish/vendor_completions.d/gpubroker.fish",
		"usr/share/doc/gpubroker/README.md", "usr/share/doc/gpubroker/architecture.md", "usr/share/doc/gpubroker/copyright",
		"usr/share/doc/gpubroker/changelog.gz", "usr/share/doc/gpubroker/licences/go.uber.org_zap",
	} {
		if st, err := os.Stat(filepath.Join(root, want)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(output(t, "dpkg-deb", "-c", deb)), "\n") {
		f := strings.Fields(line)
		if f[1] != "root/root" || f[0][5] == 'w' || f[0][8] == 'w' || strings.HasPrefix(f[0], "l") {
			t.Errorf("owner, mode or kind: %s", line)
		}
	}
	check := exec.Command("md5sum", "--quiet", "-c", "DEBIAN/md5sums")
	check.Dir = root
	output(t, "dpkg-deb", "-e", deb, filepath.Join(root, "DEBIAN"))
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("checksums: %v\n%s", err, out)
	}

	t.Run("program", func(t *testing.T) { debProgram(t, root) })
	t.Run("files", func(t *testing.T) { debFiles(t, root) })
	t.Run("install", func(t *testing.T) { debInstall(t, deb) })
	t.Run("lintian", func(t *testing.T) { debLintian(t, deb) })
}

// debProgram runs the program from the package, and nothing of the checkout.
func debProgram(t *testing.T, root string) {
	run := func(args ...string) ([]byte, error) {
		cmd := exec.Command(filepath.Join(root, "usr/bin/gpubroker"), args...)
		cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin"}
		return cmd.Output()
	}
	if out, err := run("version"); err != nil || !strings.HasPrefix(string(out), "gpubroker 1.2.3 (") {
		t.Errorf("version %q, %v", out, err)
	}
	var caps struct{ Type string }
	if out, err := run("--print-capabilities"); err != nil || json.Unmarshal(out, &caps) != nil || caps.Type != "gpu" {
		t.Errorf("capabilities %q, %v", out, err)
	}
	var rep struct{ Version string }
	if out, _ := run("smoke", "--json"); json.Unmarshal(out, &rep) != nil || rep.Version != "1.2.3" { // its code is the machine's
		t.Errorf("smoke: %q", out)
	}
	if out, err := run("man", "/nonexistent"); err == nil {
		t.Errorf("the packager's command is in the program: %s", out)
	}
}

// debFiles: what the files name is in the package.
func debFiles(t *testing.T, root string) {
	read := func(name string) string {
		body, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	var b backend
	if err := json.Unmarshal([]byte(read("usr/share/qemu/vhost-user/"+descriptor)), &b); err != nil {
		t.Fatal(err)
	}
	start := regexp.MustCompile(`(?m)^ExecStart=(\S+) (.*)$`).FindStringSubmatch(read("usr/lib/systemd/user/gpubroker@.service"))
	for _, path := range []string{b.Binary, start[1]} {
		if st, err := os.Stat(filepath.Join(root, path)); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v", path, err)
		}
	}
	man := read("usr/share/man/man1/gpubroker-serve.1.gz")
	z, err := gzip.NewReader(strings.NewReader(man))
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if _, err := page.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".TH", "GPUBROKER", "1.2.3", "socket-path", "metrics"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page of serve lacks %q", want)
		}
	}
	for _, name := range []string{"gpubroker.1.gz", "gpubroker-serve.1.gz"} {
		if groff, err := exec.LookPath("man"); err == nil {
			cmd := exec.Command(groff, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", filepath.Join(root, "usr/share/man/man1", name))
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Run(); err != nil || stderr.Len() > 0 {
				t.Errorf("man %s: %v\n%s", name, err, &stderr)
			}
		}
	}
	output(t, "bash", "-n", filepath.Join(root, "usr/share/bash-completion/completions/gpubroker"))
	links := regexp.MustCompile(`\]\(([a-zA-Z][^):]*)\)`)
	for _, m := range links.FindAllStringSubmatch(read("usr/share/doc/gpubroker/README.md"), -1) {
		if _, err := os.Stat(filepath.Join(root, "usr/share/doc/gpubroker", m[1])); err != nil {
			t.Errorf("a link of README.md leads nowhere: %v", err)
		}
	}
}

// debInstall installs it into a fresh root with dpkg, and removes it again.
func debInstall(t *testing.T, deb string) {
	if os.Getuid() != 0 {
		t.Skip("dpkg --root needs to be root")
	}
	root := t.TempDir()
	for _, dir := range []string{"var/lib/dpkg/updates", "var/lib/dpkg/info", "var/log"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"var/lib/dpkg/status", "var/lib/dpkg/available"} {
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dpkg := func(args ...string) string {
		return output(t, "dpkg", append([]string{"--root=" + root, "--force-depends", "--log=/dev/null"}, args...)...)
	}
	dpkg("--install", deb)
	if st := output(t, "dpkg-query", "--admindir="+root+"/var/lib/dpkg", "-W", "-f", "${Status}", "gpubroker"); st != "install ok installed" {
		t.Errorf("status %q", st)
	}
	if out := output(t, filepath.Join(root, "usr/bin/gpubroker"), "version"); !strings.HasPrefix(out, "gpubroker 1.2.3") {
		t.Errorf("version %q", out)
	}
	dpkg("--purge", "gpubroker")
	left, err := filepath.Glob(filepath.Join(root, "usr/*/*gpubroker*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left after the removal: %q, %v", left, err)
	}
}

// debLintian asks Debian's checker. Only tags of what a package of a checkout cannot
// have are let through.
func debLintian(t *testing.T, deb string) {
	lintian, err := exec.LookPath("lintian")
	if err != nil {
		t.Skipf("Debian's checker is not installed: %v", err)
	}
	out, _ := exec.Command(lintian, "--allow-root", "--no-cfg", "--tag-display-limit", "0", deb).CombinedOutput() // its code only repeats the tags
	accepted := []string{
		"initial-upload-closes-no-bugs", "no-manual-page",
		"copyright-without-copyright-notice", // until the checkout has a LICENSE
	}
	for _, line := range strings.Split(string(out), "\n") {
		f := strings.Fields(line)
		if len(f) >= 3 && (f[0] == "E:" || f[0] == "W:") && !slices.Contains(accepted, f[2]) {
			t.Errorf("lintian: %s", line)
		}
	}
}

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

// debs are the packages that are built, by the names of their programs.
type debs map[string]*debPackage

type debPackage struct {
	name string
	file string
	root string // unpacked
}

// buildDebs builds the packages and unpacks them.
func buildDebs(t *testing.T) debs {
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
	all := debs{}
	for _, file := range strings.Fields(string(out)) {
		name, _, _ := strings.Cut(filepath.Base(file), "_")
		d := &debPackage{name: name, file: file, root: filepath.Join(dir, name)}
		output(t, "dpkg-deb", "-x", file, d.root)
		all[name] = d
	}
	if len(all) != 2 || all["gpubroker"] == nil || all["gpubroker-guest"] == nil {
		t.Fatalf("built: %s", out)
	}
	return all
}

// debContents are files that a package must have.
var debContents = map[string][]string{
	"gpubroker": {
		"usr/share/qemu/vhost-user/" + descriptor,
		"usr/lib/systemd/user/gpubroker@.service", "usr/lib/systemd/user/gpubroker@.socket", "usr/lib/systemd/user/gpubroker-input@.socket",
		"usr/share/man/man1/gpubroker-serve.1.gz", "usr/share/man/man1/gpubroker-smoke.1.gz", "usr/share/man/man1/gpubroker-shot.1.gz",
		"usr/share/doc/gpubroker/README.md", "usr/share/doc/gpubroker/architecture.md", "usr/share/doc/gpubroker/licences/go.uber.org_zap",
	},
	"gpubroker-guest": {
		"usr/lib/systemd/user/gpubroker-guest.service", "usr/lib/systemd/user/gpubroker-guest.socket",
		"usr/share/man/man1/gpubroker-guest-run.1.gz", "usr/share/man/man1/gpubroker-guest-serve.1.gz",
		"usr/share/doc/gpubroker-guest/guest.md", "usr/share/doc/gpubroker-guest/licences/github.com_spf13_cobra",
	},
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestDeb: the packages build, have what they should have where it should be, and what
// they say of themselves is true.
func TestDeb(t *testing.T) {
	all := buildDebs(t)
	for name, d := range all {
		t.Run(name, func(t *testing.T) {
			debWhole(t, d)
			t.Run("manual", func(t *testing.T) { debManual(t, d) })
			t.Run("completion", func(t *testing.T) { debCompletion(t, d) })
			t.Run("install", func(t *testing.T) { debInstall(t, d) })
			t.Run("lintian", func(t *testing.T) { debLintian(t, d.file) })
		})
	}
	t.Run("program", func(t *testing.T) { debProgram(t, all["gpubroker"].root) })
	t.Run("guest program", func(t *testing.T) {
		if out := output(t, filepath.Join(all["gpubroker-guest"].root, "usr/bin/gpubroker-guest"), "version"); out != "gpubroker-guest 1.2.3\n" {
			t.Errorf("version %q", out)
		}
	})
	t.Run("files", func(t *testing.T) { debFiles(t, all["gpubroker"].root) })
}

// debWhole: control data, contents, owners, checksums.
func debWhole(t *testing.T, d *debPackage) {
	field := func(name string) string { return strings.TrimSpace(output(t, "dpkg-deb", "-f", d.file, name)) }
	if field("Package") != d.name || field("Version") != "1.2.3" || field("Maintainer") != "A Test <test@example.org>" ||
		field("Architecture") != strings.TrimSpace(output(t, "dpkg", "--print-architecture")) {
		t.Errorf("control data:\n%s", output(t, "dpkg-deb", "-f", d.file))
	}
	for _, want := range append([]string{
		"usr/bin/" + d.name, "usr/share/man/man1/" + d.name + ".1.gz", "usr/share/bash-completion/completions/" + d.name,
		"usr/share/zsh/vendor-completions/_" + d.name, "usr/share/fish/vendor_completions.d/" + d.name + ".fish",
		"usr/share/doc/" + d.name + "/copyright", "usr/share/doc/" + d.name + "/changelog.gz",
	}, debContents[d.name]...) {
		if st, err := os.Stat(filepath.Join(d.root, want)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(output(t, "dpkg-deb", "-c", d.file)), "\n") {
		f := strings.Fields(line)
		if f[1] != "root/root" || f[0][5] == 'w' || f[0][8] == 'w' || strings.HasPrefix(f[0], "l") {
			t.Errorf("owner, mode or kind: %s", line)
		}
	}
	check := exec.Command("md5sum", "--quiet", "-c", "DEBIAN/md5sums")
	check.Dir = d.root
	output(t, "dpkg-deb", "-e", d.file, filepath.Join(d.root, "DEBIAN"))
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("checksums: %v\n%s", err, out)
	}
}

// debManual: every page is one that man shows without a complaint, and says what a reader
// looks for. Each command of the program has one.
func debManual(t *testing.T, d *debPackage) {
	pages, err := filepath.Glob(filepath.Join(d.root, "usr/share/man/man1/*.gz"))
	if err != nil || len(pages) < 5 {
		t.Fatalf("pages %q, %v", pages, err)
	}
	man, err := exec.LookPath("man")
	if err != nil {
		t.Fatalf("nothing shows manual pages here (make setup installs it): %v", err)
	}
	for _, page := range pages {
		name := strings.TrimSuffix(filepath.Base(page), ".1.gz")
		cmd := exec.Command(man, "--warnings", "-E", "UTF-8", "-l", page)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=100", "MANPAGER=cat")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Errorf("%s: %v\n%s", name, err, &stderr)
		}
		want := []string{"NAME\n       " + name + " - ", "SYNOPSIS\n       " + d.name, "DESCRIPTION\n", "OPTIONS\n", "--help", "SEE ALSO\n", d.name + " 1.2.3"}
		if !strings.HasSuffix(name, "-version") {
			want = append(want, "EXIT STATUS\n", "FILES\n", "EXAMPLES\n")
		}
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				t.Errorf("%s lacks %q:\n%s", name, w, out)
			}
		}
	}
	help := output(t, filepath.Join(d.root, "usr/bin", d.name), "--help")
	_, list, _ := strings.Cut(help, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		name := strings.Fields(line)[0]
		if _, err := os.Stat(filepath.Join(d.root, "usr/share/man/man1", d.name+"-"+name+".1.gz")); err != nil && name != "help" {
			t.Errorf("command %s has no page: %v", name, err)
		}
	}
}

// debCompletion: bash reads the script, and the program completes.
func debCompletion(t *testing.T, d *debPackage) {
	output(t, "bash", "-n", filepath.Join(d.root, "usr/share/bash-completion/completions", d.name))
	for line, want := range map[string]string{"ser": "serve\t", "serve --log-l": "--log-level\t"} {
		args := append([]string{"__complete"}, strings.Split(line, " ")...)
		out, err := exec.Command(filepath.Join(d.root, "usr/bin", d.name), args...).Output()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%q completes to %q, %v", line, out, err)
		}
	}
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
	links := regexp.MustCompile(`\]\(([a-zA-Z][^):]*)\)`)
	for _, m := range links.FindAllStringSubmatch(read("usr/share/doc/gpubroker/README.md"), -1) {
		if _, err := os.Stat(filepath.Join(root, "usr/share/doc/gpubroker", m[1])); err != nil {
			t.Errorf("a link of README.md leads nowhere: %v", err)
		}
	}
}

// debInstall installs it into a fresh root with dpkg, and removes it again.
func debInstall(t *testing.T, d *debPackage) {
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
	dpkg("--install", d.file)
	if st := output(t, "dpkg-query", "--admindir="+root+"/var/lib/dpkg", "-W", "-f", "${Status}", d.name); st != "install ok installed" {
		t.Errorf("status %q", st)
	}
	if out := output(t, filepath.Join(root, "usr/bin", d.name), "version"); !strings.HasPrefix(out, d.name+" 1.2.3") {
		t.Errorf("version %q", out)
	}
	dpkg("--purge", d.name)
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

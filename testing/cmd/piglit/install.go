package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gpubroker/gpubroker/testing/lab"
)

// packages are what the lab root lacks. They may be of an older Debian than the root: what
// they need is named by [Piglit.missing].
var packages = []string{"piglit", "libwaffle-1-0"}

// unused parts of the packages: piglit has 2 GB of generated tests.
var unused = []string{"*/generated_tests", "*/tests/cl", "*/tests/vulkan", "*/bin/cl-*", "*/framework", "*/templates", "./usr/bin", "./usr/share"}

// errUnavailable says that the tests are neither kept nor to be had.
var errUnavailable = errors.New("piglit is not available")

// howToGet is for people who have none.
const howToGet = `its Debian packages (piglit, libwaffle-1-0; 34 MB) are fetched once by apt:
	apt-get update                          # as root, with the network: its lists have to name them
	apt-cache policy piglit libwaffle-1-0   # shows a candidate of each then; Debian 12 has both`

// Piglit is the unpacked tests.
type Piglit struct {
	Version string
	Waffle  string // of the library that opens its contexts
	home    string // the folder with bin/, lib/ and tests/
}

// install returns piglit as apt would install it. Where that cannot be had, what was fetched
// before is good enough.
func install(ctx context.Context, root *lab.Root, say func(string)) (*Piglit, error) {
	if root.InGuest() {
		return nil, fmt.Errorf("%w in a guest of the lab: the tests are kept beside its root", errUnavailable)
	}
	place := filepath.Join(root.Dir, "piglit")
	name, err := wanted(ctx, place, say)
	if err != nil {
		kept, keptErr := newest(place)
		if keptErr != nil || ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w\n%s", errUnavailable, err, howToGet)
		}
		say(fmt.Sprintf("using what was fetched before: %v", err))
		name = kept
	}
	homes, err := filepath.Glob(filepath.Join(place, name, "usr/lib/*/piglit"))
	if err != nil || len(homes) != 1 {
		return nil, fmt.Errorf("%w: %s is not the packages' tree: remove it and try again", errUnavailable, filepath.Join(place, name))
	}
	versions := strings.Split(name, separator)
	p := &Piglit{Version: versions[0], Waffle: versions[1], home: homes[0]}
	return p, p.missing(ctx, root)
}

// separator of the versions in a folder's name: no version of Debian has it.
const separator = "_"

// wanted returns the folder of the versions that apt would install, and fetches them if
// they are not there.
func wanted(ctx context.Context, place string, say func(string)) (name string, err error) {
	versions, err := candidates(ctx)
	if err != nil {
		return "", err
	}
	name = strings.Join(versions, separator)
	dir := filepath.Join(place, name)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return name, err
	}
	say("fetching piglit " + versions[0] + " by apt")
	return name, fetch(ctx, place, dir)
}

// candidates are the packages' versions that apt would install.
func candidates(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", append([]string{"show", "--no-all-versions"}, packages...)...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // that it knows none is told by what is missing
		return nil, err
	}
	return parseShow(string(out))
}

// parseShow reads apt-cache show: the version of each of the packages, in their order.
func parseShow(text string) ([]string, error) {
	have := map[string]string{}
	name := ""
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Package":
			name = value
		case "Version":
			have[name] = value
		}
	}
	var versions []string
	for _, name := range packages {
		version := have[name]
		if version == "" {
			return nil, fmt.Errorf("apt knows no package %s", name)
		}
		if strings.ContainsAny(version, "/"+separator) {
			return nil, fmt.Errorf("version %q of package %s is none of Debian's", version, name)
		}
		// An epoch's colon would end the path in LD_LIBRARY_PATH. Apt writes it so, too.
		versions = append(versions, strings.ReplaceAll(version, ":", "%3a"))
	}
	return versions, nil
}

// newest is the last one that was unpacked.
func newest(place string) (string, error) {
	entries, err := os.ReadDir(place)
	if err != nil {
		return "", err
	}
	for _, e := range slices.Backward(entries) {
		if strings.Count(e.Name(), separator) == len(packages)-1 {
			return e.Name(), nil
		}
	}
	return "", fs.ErrNotExist
}

// fetch unpacks the packages beside their place and renames them into it.
func fetch(ctx context.Context, place, dir string) (err error) {
	if err := os.MkdirAll(place, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(place, "new-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	// The folder is ours alone, and apt's own user could not write to it.
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "APT::Sandbox::User=root", "download"}, packages...)...)
	cmd.Dir = work
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download: %w\n%s", err, text)
	}
	files, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(files) != len(packages) {
		return fmt.Errorf("apt-get download left %d files of %d", len(files), len(packages))
	}
	tree := filepath.Join(work, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		if err := unpack(ctx, file, tree); err != nil {
			return err
		}
	}
	err = os.Rename(tree, dir)
	if _, statErr := os.Stat(dir); statErr == nil {
		return nil // another run may have been first
	}
	return err
}

// unpack writes what is used of a package.
func unpack(ctx context.Context, file, tree string) error {
	args := []string{"-x", "-C", tree, "--no-same-owner"}
	for _, pattern := range unused {
		args = append(args, "--exclude="+pattern)
	}
	from := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
	to := exec.CommandContext(ctx, "tar", args...)
	var said strings.Builder
	from.Stderr, to.Stderr = &said, &said
	pipe, err := from.StdoutPipe()
	if err != nil {
		return err
	}
	to.Stdin = pipe
	if err := from.Start(); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
	}
	toErr := to.Run()
	_ = pipe.Close() // ends dpkg-deb if tar did not read all
	if err := errors.Join(toErr, from.Wait()); err != nil {
		return fmt.Errorf("unpack %s: %w\n%s", filepath.Base(file), err, said.String())
	}
	return nil
}

// missing asks the root's loader for what it does not find.
func (p *Piglit) missing(ctx context.Context, root *lab.Root) error {
	out, err := root.Command(ctx, lab.CommandOptions{Env: p.env()}, "ldd",
		p.program("shader_runner"), p.program("shader_runner_gles3"), filepath.Join(p.home, "..", "libwaffle-1.so.0")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %w\n%s", errUnavailable, err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "not found") {
			return fmt.Errorf("%w: the lab root cannot load it: %s", errUnavailable, strings.TrimSpace(line))
		}
	}
	return nil
}

func (p *Piglit) program(name string) string { return filepath.Join(p.home, "bin", name) }

// env is what its programs need to run from where they are, without a window.
func (p *Piglit) env() []string {
	return []string{
		"LD_LIBRARY_PATH=" + filepath.Join(p.home, "lib") + ":" + filepath.Dir(p.home),
		"PIGLIT_SOURCE_DIR=" + p.home,
		"PIGLIT_PLATFORM=surfaceless_egl",
		"MESA_DEBUG=silent",
	}
}

// argv is the command line of a test. Files of tests are named from piglit's folder.
func (p *Piglit) argv(t Test) []string {
	argv := strings.Fields(t.Name)
	argv[0] = p.program(argv[0])
	for i, arg := range argv[1:] {
		if strings.HasPrefix(arg, "tests/") {
			argv[1+i] = filepath.Join(p.home, arg)
		}
	}
	return append(argv, "-auto", "-fbo")
}

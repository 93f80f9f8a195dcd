package lab

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// recipe holds the files that build the root; their hash names the root.
//
//go:embed root/build.sh root/hook.sh root/modules.txt root/packages.txt root/pins
var recipe embed.FS

// recipeFiles in the order in which build.sh hashes them.
var recipeFiles = []string{"build.sh", "hook.sh", "modules.txt", "packages.txt", "pins"}

// ErrNoRoot says that the lab root is missing or was made by another recipe.
var ErrNoRoot = errors.New("lab root not usable: run `make lab`")

// Root is the lab's Debian tree. It is read-only in use and may be shared by any
// number of processes.
type Root struct {
	Dir    string // the lab's folder: $GPUBROKER_LAB or the user's cache
	Path   string // the tree, Dir/root; GuestPath in a guest
	Kernel string // release of its kernel, "7.3.4+deb13-amd64"
}

// GuestPath is where a guest of the lab sees the tree without the overlay.
const GuestPath = "/lab/ro"

// InGuest reports whether this process runs in a guest of the lab. There the
// tree is the root file system itself, and [Root.Command] needs no sandbox.
func (r *Root) InGuest() bool { return r.Path == GuestPath }

// Find returns the root that `make lab` built. The error wraps [ErrNoRoot] if
// there is none or if its recipe has changed since.
func Find() (*Root, error) {
	r, err := place()
	if err != nil {
		return nil, err
	}
	have, err := os.ReadFile(r.Inside("lab/recipe"))
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoRoot, err)
	}
	if want := recipeHash(); strings.TrimSpace(string(have)) != want {
		return nil, fmt.Errorf("%w (%s has recipe %.12s, the checkout has %.12s)", ErrNoRoot, r.Path, have, want)
	}
	kernel, err := os.ReadFile(r.Inside("lab/kernel"))
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoRoot, err)
	}
	r.Kernel = strings.TrimSpace(string(kernel))
	return r, nil
}

// place says where the root is, or would be.
func place() (*Root, error) {
	if _, err := os.Stat(filepath.Join(GuestPath, "lab/recipe")); err == nil {
		return &Root{Dir: "/lab", Path: GuestPath}, nil
	}
	dir := os.Getenv("GPUBROKER_LAB")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("%w (%w)", ErrNoRoot, err)
		}
		dir = filepath.Join(cache, "gpubroker", "lab")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoRoot, err)
	}
	return &Root{Dir: dir, Path: filepath.Join(dir, "root")}, nil
}

// recipeHash is what build.sh writes to lab/recipe: the hash of the list that
// sha256sum prints.
func recipeHash() string {
	list := sha256.New()
	for _, name := range recipeFiles {
		body, err := recipe.ReadFile("root/" + name)
		if err != nil {
			panic(err) // embedded above
		}
		fmt.Fprintf(list, "%x  %s\n", sha256.Sum256(body), name)
	}
	return hex.EncodeToString(list.Sum(nil))
}

// Inside returns the host's path of a file of the tree, given without the
// leading slash.
func (r *Root) Inside(name string) string { return filepath.Join(r.Path, name) }

// Versions returns what the root was built from: "kernel", "qemu", "qemu-10",
// "mesa", "virglrenderer", "weston", "sway".
func (r *Root) Versions() (map[string]string, error) {
	body, err := os.ReadFile(r.Inside("lab/versions"))
	if err != nil {
		return nil, fmt.Errorf("lab versions: %w", err)
	}
	versions := map[string]string{}
	for line := range strings.Lines(string(body)) {
		name, version, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			return nil, fmt.Errorf("lab versions: line %q has no version", line)
		}
		versions[name] = version
	}
	return versions, nil
}

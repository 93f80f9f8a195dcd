package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

// controlOption finds the control socket of a running gpubroker.
type controlOption struct{ path string }

func (c *controlOption) register(f *pflag.FlagSet) {
	f.StringVar(&c.path, "control", "", "the broker's control socket, as serve --control `PATH` made it (default: the only one in $XDG_RUNTIME_DIR/gpubroker)")
}

// socket returns the socket's path: the one given, or the only one where the systemd
// units put them.
func (c *controlOption) socket() (string, error) {
	if c.path != "" {
		return c.path, nil
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		return "", usageError{fmt.Errorf("want --control PATH (XDG_RUNTIME_DIR is not set)")}
	}
	found, _ := filepath.Glob(filepath.Join(dir, "gpubroker", "*.control")) // only a bad pattern fails
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", usageError{fmt.Errorf("want --control PATH: no broker has a control socket in %s", filepath.Join(dir, "gpubroker"))}
	}
	return "", usageError{fmt.Errorf("want --control PATH, one of %s", strings.Join(found, ", "))}
}

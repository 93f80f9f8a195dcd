package wayland

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
)

// Config says where the compositor is and what its windows look like. The zero
// Config is usable.
type Config struct {
	// Display is the compositor's socket: a name in $XDG_RUNTIME_DIR or a path.
	// Empty means $WAYLAND_DISPLAY, and wayland-0 if that is unset.
	Display string
	// Title is the title of head 0's window; the others append their number.
	// Empty means "gpubroker".
	Title string
	// AppID is the windows' application id. Empty means "gpubroker".
	AppID string
	// Modes are the heads' modes by number; heads beyond them are disabled.
	// Empty means head 0 with 1280x800.
	Modes []display.Mode
	// Wait makes NewSink succeed without a compositor and connect when one comes.
	Wait bool
	// Events hears of mode and format changes; may be nil.
	Events display.Events
	// Log may be nil.
	Log *zap.Logger
}

func (c *Config) fill() {
	if c.Title == "" {
		c.Title = "gpubroker"
	}
	if c.AppID == "" {
		c.AppID = "gpubroker"
	}
	if len(c.Modes) == 0 {
		c.Modes = []display.Mode{{Enabled: true, W: 1280, H: 800}}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
}

// maxPath is the longest path that fits struct sockaddr_un (unix(7)).
const maxPath = 107

// socketPath finds the compositor's socket as wl_display_connect(3) does.
func socketPath(name string) (string, error) {
	if name == "" {
		name = os.Getenv("WAYLAND_DISPLAY")
	}
	if name == "" {
		name = "wayland-0"
	}
	if !strings.Contains(name, "/") {
		dir := os.Getenv("XDG_RUNTIME_DIR")
		if dir == "" {
			return "", &OpError{Op: "find socket", Object: name,
				Err: fmt.Errorf("%w: XDG_RUNTIME_DIR is not set; set it, or give the socket's path", ErrNoCompositor)}
		}
		name = filepath.Join(dir, name)
	}
	if len(name) > maxPath {
		return "", &OpError{Op: "find socket", Object: name,
			Err: fmt.Errorf("%w: path of %d bytes, limit %d", ErrNoCompositor, len(name), maxPath)}
	}
	return name, nil
}

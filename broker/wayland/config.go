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
	// Title is the windows' title, to which they add the number of their head if
	// there are several: "Title — head 1". Empty means "gpubroker".
	Title string
	// AppID is the application id of head 0's window; the others add their number,
	// "gpubroker.1", so that compositors can be told where each one goes. Empty
	// means "gpubroker".
	AppID string
	// Modes are the heads' modes by number; heads beyond them are disabled.
	// Empty means head 0 with 1280x800.
	Modes []display.Mode
	// Input takes what the user does in the windows; nil for windows that only show.
	Input display.Input
	// Resize lets the user change a window's size, which becomes its head's mode
	// 100 ms later (Events.ModeChanged); until the guest follows, its picture is
	// scaled. Set it if the guest can be told. Without it windows have the size of
	// their picture.
	Resize bool
	// Fullscreen starts the windows fullscreen.
	Fullscreen bool
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

func (c *Config) title(head int) string {
	if head == 0 && (len(c.Modes) < 2 || !c.Modes[1].Enabled) {
		return c.Title
	}
	return fmt.Sprintf("%s — head %d", c.Title, head)
}

func (c *Config) appID(head int) string {
	if head == 0 {
		return c.AppID
	}
	return fmt.Sprintf("%s.%d", c.AppID, head)
}

// maxPath is the longest path that fits struct sockaddr_un (unix(7)).
const maxPath = 107

// SocketPath finds the compositor's socket as wl_display_connect(3) does, from a name,
// a path or nothing.
func SocketPath(name string) (string, error) { return socketPath(name) }

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

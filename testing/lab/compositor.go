package lab

import (
	"context"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Compositor is a running Wayland compositor without a screen.
type Compositor struct {
	RuntimeDir string // XDG_RUNTIME_DIR for its clients, on the host too
	Display    string // WAYLAND_DISPLAY

	root  *Root
	proc  *process
	env   []string // of the compositor
	start func() (*process, error)
	// shoot is the screenshot program; it leaves one PNG in its working folder.
	shoot []string
}

// startTimeout bounds the start of a compositor or X server, and a screenshot,
// inside an emulated guest too.
const startTimeout = 60 * time.Second

// startCompositor runs argv with a private XDG_RUNTIME_DIR and waits for its
// socket. The files are written into that folder first.
func (r *Root) startCompositor(ctx context.Context, c *Compositor, env []string, log io.Writer, files map[string]string, argv ...string) (*Compositor, error) {
	dir, err := os.MkdirTemp("", "lab-"+argv[0]+"-")
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	c.root, c.RuntimeDir = r, dir
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			os.RemoveAll(dir)
			return nil, fmt.Errorf("start %s: %w", argv[0], err)
		}
	}
	c.env = append([]string{"XDG_RUNTIME_DIR=" + dir, "XDG_CONFIG_HOME=" + dir, "LIBGL_ALWAYS_SOFTWARE=1"}, env...)
	c.start = func() (*process, error) {
		return r.startProcess(CommandOptions{Env: c.env, Bind: []string{dir}, Dir: dir}, log, argv...)
	}
	if c.proc, err = c.start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.proc.waitFor(ctx, "start", c.findSocket); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// findSocket looks for the compositor's socket and sets Display.
func (c *Compositor) findSocket() bool {
	found, _ := filepath.Glob(filepath.Join(c.RuntimeDir, "wayland-*.lock"))
	for _, lock := range found {
		socket := strings.TrimSuffix(lock, ".lock")
		if Listening(socket) {
			c.Display = filepath.Base(socket)
			return true
		}
	}
	return false
}

// Socket returns the path of the compositor's socket.
func (c *Compositor) Socket() string { return filepath.Join(c.RuntimeDir, c.Display) }

// Env returns what a client needs in its environment.
func (c *Compositor) Env() []string {
	return []string{"XDG_RUNTIME_DIR=" + c.RuntimeDir, "WAYLAND_DISPLAY=" + c.Display}
}

// Client returns a command that runs a program of the root as a client.
func (c *Compositor) Client(ctx context.Context, argv ...string) *exec.Cmd {
	env := append(c.Env(), "LIBGL_ALWAYS_SOFTWARE=1")
	return c.root.Command(ctx, CommandOptions{Env: env, Bind: []string{c.RuntimeDir}}, argv...)
}

// Screenshot returns the compositor's own picture of its output.
func (c *Compositor) Screenshot(ctx context.Context) (image.Image, error) {
	dir, err := os.MkdirTemp(c.RuntimeDir, "shot-")
	if err != nil {
		return nil, fmt.Errorf("screenshot: %w", err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cmd := c.root.Command(ctx, CommandOptions{
		Env:  append(c.Env(), "XDG_PICTURES_DIR="+dir),
		Bind: []string{c.RuntimeDir},
		Dir:  dir,
	}, c.shoot...)
	out, runErr := cmd.CombinedOutput()

	// weston-screenshooter ends with code 0 when it was refused: only the file counts.
	shots, _ := filepath.Glob(filepath.Join(dir, "*.png"))
	if runErr != nil || len(shots) != 1 {
		return nil, c.proc.failure("screenshot", fmt.Errorf("%s left %d pictures: %w: %s",
			c.shoot[0], len(shots), orRefused(runErr), strings.TrimSpace(string(out))))
	}
	f, err := os.Open(shots[0])
	if err != nil {
		return nil, fmt.Errorf("screenshot: %w", err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		return nil, fmt.Errorf("screenshot: %w", err)
	}
	return img, nil
}

func orRefused(err error) error {
	if err != nil {
		return err
	}
	return os.ErrPermission
}

// Log returns the last lines that the compositor wrote.
func (c *Compositor) Log() string { return c.proc.out.last(200) }

// Stop ends the compositor at once; its clients see the connection close.
func (c *Compositor) Stop() {
	c.proc.stop()
	os.RemoveAll(c.RuntimeDir)
}

package main

import (
	"context"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"

	"github.com/gpubroker/gpubroker/testing/lab"
)

// compositor is where the demo's window goes.
type compositor struct {
	name   string
	socket string // absolute path
	env    []string
	bind   []string
	shoot  func(context.Context) (image.Image, error)
	stop   func()
}

// findCompositor takes the user's own compositor if there is one, else it starts
// a headless weston.
func findCompositor(ctx context.Context, root *lab.Root) (*compositor, error) {
	if display := os.Getenv("WAYLAND_DISPLAY"); display != "" {
		return userCompositor(root, display)
	}
	w, err := root.Weston(ctx, lab.WestonOptions{W: width, H: height})
	if err != nil {
		return nil, err
	}
	return &compositor{
		name: "headless weston (set WAYLAND_DISPLAY to see the window yourself)", socket: w.Socket(), env: w.Env(),
		bind: []string{w.RuntimeDir}, shoot: w.Screenshot, stop: w.Stop,
	}, nil
}

func userCompositor(root *lab.Root, display string) (*compositor, error) {
	runtime := os.Getenv("XDG_RUNTIME_DIR")
	socket := display
	if !filepath.IsAbs(socket) {
		socket = filepath.Join(runtime, display)
	}
	if _, err := os.Stat(socket); err != nil {
		return nil, fmt.Errorf("WAYLAND_DISPLAY=%s: %w: unset it to use a headless compositor", display, err)
	}
	c := &compositor{
		name: "your compositor at " + socket, socket: socket, bind: []string{filepath.Dir(socket)},
		env: []string{"XDG_RUNTIME_DIR=" + filepath.Dir(socket)}, stop: func() {},
	}
	c.shoot = func(ctx context.Context) (image.Image, error) { return c.grim(ctx, root) }
	return c, nil
}

// grim asks a compositor that speaks screencopy for a screenshot.
func (c *compositor) grim(ctx context.Context, root *lab.Root) (image.Image, error) {
	dir, err := os.MkdirTemp("", "gpubroker-shot-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "shot.png")
	cmd := root.Command(ctx, lab.CommandOptions{Env: append(c.env, "WAYLAND_DISPLAY="+c.socket), Bind: c.bind}, "grim", file)
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("your compositor gives no screenshot to grim: %w: %s(unset WAYLAND_DISPLAY for a headless run)", err, text)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return png.Decode(f)
}

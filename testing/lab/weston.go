package lab

import (
	"context"
	"fmt"
	"io"
)

// WestonOptions describe a headless weston. The zero value is a kiosk of 1280x720
// drawn by pixman.
type WestonOptions struct {
	Renderer string // "pixman" (also if empty) or "gl", which shows dma-bufs where they exist
	W, H     int    // output size in pixels, 1280x720 if 0
	// Shell is "kiosk" (also if empty), which gives every window the whole output,
	// or "desktop", which places windows at random.
	Shell string
	Env   []string  // added to weston's environment
	Args  []string  // added to its command line
	Log   io.Writer // its log; may be nil
}

// Weston starts a headless weston. The caller ends it with Stop.
func (r *Root) Weston(ctx context.Context, opt WestonOptions) (*Compositor, error) {
	if opt.Renderer == "" {
		opt.Renderer = "pixman"
	}
	if opt.Shell == "" {
		opt.Shell = "kiosk"
	}
	if opt.W == 0 || opt.H == 0 {
		opt.W, opt.H = 1280, 720
	}
	argv := append([]string{
		"weston", "--backend=headless", "--renderer=" + opt.Renderer,
		fmt.Sprintf("--width=%d", opt.W), fmt.Sprintf("--height=%d", opt.H),
		"--shell=" + opt.Shell, "--socket=wayland-lab", "--idle-time=0",
		"--config=weston.ini",
		"--debug", // without it weston refuses screenshots
	}, opt.Args...)
	files := map[string]string{"weston.ini": `[shell]
panel-position=none
background-color=0xff000000
animation=none
startup-animation=none
close-animation=none
locking=false
`}
	c := &Compositor{shoot: []string{"weston-screenshooter"}}
	return r.startCompositor(ctx, c, opt.Env, opt.Log, files, argv...)
}

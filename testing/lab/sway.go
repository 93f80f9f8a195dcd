package lab

import (
	"context"
	"fmt"
	"io"
)

// SwayOptions describe a headless sway. The zero value is one output of 1280x720.
type SwayOptions struct {
	W, H   int       // output size in pixels, 1280x720 if 0
	Config string    // added to sway's configuration
	Env    []string  // added to its environment; the renderer is pixman by default
	Log    io.Writer // its log; may be nil
}

// Sway starts a headless sway with borderless windows. The caller ends it with
// Stop.
func (r *Root) Sway(ctx context.Context, opt SwayOptions) (*Compositor, error) {
	if opt.W == 0 || opt.H == 0 {
		opt.W, opt.H = 1280, 720
	}
	config := fmt.Sprintf(`xwayland disable
default_border none
default_floating_border none
focus_follows_mouse no
output HEADLESS-1 resolution %dx%d position 0 0 scale 1
%s
`, opt.W, opt.H, opt.Config)
	env := append([]string{
		"WLR_BACKENDS=headless", "WLR_RENDERER=pixman", "WLR_LIBINPUT_NO_DEVICES=1",
		"XDG_CURRENT_DESKTOP=sway",
	}, opt.Env...)
	c := &Compositor{shoot: []string{"grim", "shot.png"}}
	return r.startCompositor(ctx, c, env, opt.Log, map[string]string{"config": config}, "sway", "--config", "config")
}

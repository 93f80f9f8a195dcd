package clients

import (
	"context"
	"fmt"
	"image"
	"slices"
	"sync"
	"time"

	"github.com/gpubroker/gpubroker/testing/inputcase"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/westoncap"
)

// Size of the compositors' outputs, in pixels.
const (
	outputW = 800
	outputH = 600
)

// The compositors.
const (
	WestonPixman = "weston-pixman"
	WestonGL     = "weston-gl"
	Sway         = "sway"
)

// Compositors are the names that [StartCompositor] takes.
var Compositors = []string{WestonPixman, WestonGL, Sway}

// Compositor is a host's desktop that is looked at. Sway has a user too, with a
// keyboard and a pointer.
type Compositor struct {
	Name string
	*lab.Compositor

	empty *westoncap.Picture // its output without windows

	mu     sync.Mutex
	camera *westoncap.Camera  // guarded by mu: of weston, nil until used and after Restart
	user   *inputcase.Virtual // guarded by mu: of sway
}

// StartCompositor starts one of Compositors. The caller ends it with Stop.
func StartCompositor(ctx context.Context, root *lab.Root, name string) (*Compositor, error) {
	c := &Compositor{Name: name}
	var err error
	switch name {
	case WestonPixman:
		c.Compositor, err = root.Weston(ctx, lab.WestonOptions{W: outputW, H: outputH})
	case WestonGL:
		c.Compositor, err = root.Weston(ctx, lab.WestonOptions{Renderer: "gl", W: outputW, H: outputH})
	case Sway:
		c.Compositor, err = root.Sway(ctx, lab.SwayOptions{W: outputW, H: outputH, Config: "seat * hide_cursor 100"})
		if err == nil {
			err = c.plugIn()
		}
	default:
		return nil, fmt.Errorf("compositor %q: want one of %v", name, Compositors)
	}
	if err != nil {
		if c.Compositor != nil {
			c.Stop()
		}
		return nil, err
	}
	if err := c.rest(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// rest waits until the empty output does not change: sway hides its pointer first.
func (c *Compositor) rest(ctx context.Context) error {
	const pause = 500 * time.Millisecond // longer than sway's hide_cursor
	for {
		last := c.empty
		var err error
		if c.empty, err = c.Shoot(ctx); err != nil {
			return err
		}
		if last != nil && slices.Equal(last.Pix, c.empty.Pix) {
			return nil
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// plugIn gives sway's seat a keyboard and a pointer, without which clients get no
// focus.
func (c *Compositor) plugIn() error {
	user, err := inputcase.NewVirtual(c.Socket())
	if err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	c.user = user
	return nil
}

// Keyboard reports whether its clients have one.
func (c *Compositor) Keyboard() bool { return c.Name == Sway }

// Shoot takes a picture of the output.
func (c *Compositor) Shoot(ctx context.Context) (*westoncap.Picture, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Name == Sway {
		img, err := c.Screenshot(ctx)
		if err != nil {
			return nil, err
		}
		return picture(img), nil
	}
	if c.camera == nil {
		camera, err := westoncap.Open(c.Socket())
		if err != nil {
			return nil, err
		}
		c.camera = camera
	}
	p, err := c.camera.Shoot()
	if err != nil {
		c.camera.Close()
		c.camera = nil
	}
	return p, err
}

func picture(img image.Image) *westoncap.Picture {
	b := img.Bounds()
	p := westoncap.NewPicture(b.Dx(), b.Dy())
	for y := range p.H {
		for x := range p.W {
			r, g, bl, _ := img.At(b.Min.X+x, b.Min.Y+y).RGBA()
			p.Pix[y*p.W+x] = r>>8<<16 | g>>8<<8 | bl>>8
		}
	}
	return p
}

// unplug lets go of the connections to it.
func (c *Compositor) unplug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.camera != nil {
		c.camera.Close()
		c.camera = nil
	}
	if c.user != nil {
		c.user.Close()
		c.user = nil
	}
}

// Kill ends it like a crash.
func (c *Compositor) Kill() {
	c.unplug()
	c.Compositor.Kill()
}

// Restart brings it back on the same socket.
func (c *Compositor) Restart(ctx context.Context) error {
	c.unplug()
	if err := c.Compositor.Restart(ctx); err != nil {
		return err
	}
	if c.Name == Sway {
		return c.plugIn()
	}
	return nil
}

// Stop ends it.
func (c *Compositor) Stop() {
	c.unplug()
	c.Compositor.Stop()
}

package lab

import (
	"context"
	"fmt"
	"image"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
)

// Xvfb is a running X server whose screen is a file.
type Xvfb struct {
	Display string // DISPLAY for clients, on the host too

	number int
	dir    string
	proc   *process
}

var xvfbCount atomic.Int32

// Xvfb starts an X server with one screen of w x h pixels, 24 bits deep. The
// caller ends it with Stop.
func (r *Root) Xvfb(ctx context.Context, w, h int, log io.Writer) (*Xvfb, error) {
	dir, err := os.MkdirTemp("", "lab-xvfb-")
	if err != nil {
		return nil, fmt.Errorf("start Xvfb: %w", err)
	}
	// Not -displayfd: X servers in different process namespaces misread each
	// other's lock files and would take the same number.
	x := &Xvfb{dir: dir, number: 100 + (os.Getpid()*16+int(xvfbCount.Add(1)))%59000}
	x.Display = fmt.Sprintf(":%d", x.number)
	x.proc, err = r.startProcess(CommandOptions{Bind: []string{dir}}, log,
		"Xvfb", x.Display, "-screen", "0", fmt.Sprintf("%dx%dx24", w, h),
		"-fbdir", dir, "-nolisten", "tcp", "-noreset", "-ac")
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = x.proc.waitFor(ctx, "start", func() bool {
		info, err := os.Stat(x.socket())
		if err != nil || info.Mode().Type() != os.ModeSocket {
			return false
		}
		_, err = x.Screenshot() // it listens before it has written the file
		return err == nil
	})
	if err != nil {
		x.Stop()
		return nil, err
	}
	return x, nil
}

func (x *Xvfb) socket() string { return fmt.Sprintf("/tmp/.X11-unix/X%d", x.number) }

// Env returns what a client needs in its environment.
func (x *Xvfb) Env() []string { return []string{"DISPLAY=" + x.Display} }

// Screenshot returns the screen's pixels as they are now.
func (x *Xvfb) Screenshot() (image.Image, error) {
	if err := x.proc.alive(); err != nil {
		return nil, err
	}
	body, err := os.ReadFile(filepath.Join(x.dir, "Xvfb_screen0"))
	if err != nil {
		return nil, fmt.Errorf("screenshot: %w", err)
	}
	img, err := decodeXWD(body)
	if err != nil {
		return nil, fmt.Errorf("screenshot of %s: %w", x.Display, err)
	}
	return img, nil
}

// Stop ends the server and removes the files that it leaves behind.
func (x *Xvfb) Stop() {
	x.proc.stop()
	os.Remove(x.socket())
	os.Remove(fmt.Sprintf("/tmp/.X%d-lock", x.number))
	os.RemoveAll(x.dir)
}

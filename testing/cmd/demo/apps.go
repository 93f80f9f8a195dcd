package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/testing/clients"
	"github.com/gpubroker/gpubroker/testing/inputcase"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

// modeApps is the demo of windows of the guest's programs.
const modeApps = "apps"

// app is a program of the demo.
type app struct {
	name   string
	run    string // in the guest
	id     string // of its window, as the program calls it
	frames uint64 // that its window must have shown
}

// apps are a terminal and two programs that draw with OpenGL. The terminal is the largest:
// where windows overlap, the others lie on it.
var apps = []app{
	{"weston-terminal", "exec weston-terminal --shell=$HOME/shell", "org.freedesktop.weston.wayland-terminal", 1},
	{"weston-simple-egl", "exec weston-simple-egl", "org.freedesktop.weston.simple-egl", 30},
	{"es2gears_wayland", "exec es2gears_wayland", "", 30},
}

// appsReport is out/demo-apps/report.json.
type appsReport struct {
	Windows       []appWindow       `json:"windows"`
	GuestRenderer string            `json:"guest_renderer"`
	Transport     string            `json:"transport"`
	Compositor    string            `json:"compositor"`
	Accelerator   string            `json:"accelerator"`
	DMABufs       bool              `json:"dmabufs"` // whether this machine's renderer can export them
	Apps          broker.AppsStatus `json:"apps"`
	Errors        uint64            `json:"errors"`
	Seconds       float64           `json:"seconds"`
	Versions      map[string]string `json:"versions"`
}

// appWindow is a window: proxy.WindowStats by the name of the program.
type appWindow struct {
	App         string            `json:"app"`
	Title       string            `json:"title"`
	Transport   string            `json:"transport"`
	Frames      map[string]uint64 `json:"frames"` // by tier
	BytesCopied uint64            `json:"bytes_copied"`
	Why         string            `json:"why,omitempty"` // why not a better tier
}

// appsOptions are the flags of -mode=apps.
type appsOptions struct {
	transport string
	host      string // "" or hostVM
	programs  string // folder with both programs, which are built if empty
}

func demoApps(ctx context.Context, o appsOptions) (err error) {
	if o.host != "" {
		return demoAppsVM(ctx, o)
	}
	transport := o.transport
	start := time.Now()
	steps := report.NewSteps(os.Stdout, 6)
	out, err := report.NewDir("demo-apps")
	if err != nil {
		return err
	}
	steps.Step("Finding the lab root, building gpubroker and gpubroker-guest")
	root, err := lab.Find()
	if err != nil {
		return err
	}
	rep := appsReport{}
	if rep.Versions, err = root.Versions(); err != nil {
		return err
	}
	programs := clients.Programs{Broker: filepath.Join(o.programs, "gpubroker"), Guest: filepath.Join(o.programs, "gpubroker-guest")}
	if o.programs == "" {
		if programs, err = clients.BuildPrograms(ctx, filepath.Join("out", "bin")); err != nil {
			return err
		}
	}

	steps.Step("Finding a compositor")
	comp, err := findDesktop(ctx, root)
	if err != nil {
		return err
	}
	defer comp.stop()
	rep.Compositor = comp.name
	steps.Note("%s", comp.name)

	steps.Step("Starting gpubroker serve --apps, and a Debian guest without a display server (%s)", transport)
	log, err := out.Create("gpubroker.log")
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	guest, err := clients.StartGuest(ctx, root, programs, comp.socket, clients.GuestOptions{Transport: transport, Log: log, VM: nestedConfig(ctx, root)})
	if err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped {
			_, _ = guest.Close() // an earlier error is being returned
		}
	}()
	rep.Accelerator, rep.Transport = guest.VM.Config.Accel, transport
	steps.Note("the guest is up (accelerator: %s)", rep.Accelerator)

	steps.Step("Running %s in the guest", names())
	for _, a := range apps {
		client, err := guest.Start(ctx, a.run)
		if err != nil {
			return err
		}
		if err := waitWindow(ctx, root, guest, client, a); err != nil {
			return err
		}
		steps.Note("%s has a window", a.name)
	}
	st, err := guest.Broker().Status()
	if err != nil {
		return err
	}
	rep.fill(&st)

	steps.Step("Taking a screenshot")
	shot, err := comp.shoot(ctx)
	if err != nil {
		return err
	}
	if err := out.PNG("screenshot.png", shot); err != nil {
		return err
	}
	for _, w := range rep.Windows {
		steps.Note("%-18s over %s: %v, %d bytes copied", w.App, w.Transport, w.Frames, w.BytesCopied)
	}
	text, err := guest.VM.Check(ctx, "eglinfo -B -p surfaceless 2>/dev/null | sed -n 's/^OpenGL core profile renderer: //p'")
	if err != nil {
		return err
	}
	rep.GuestRenderer = strings.TrimSpace(text)
	steps.Note("GL_RENDERER %s", rep.GuestRenderer)

	steps.Step("Stopping, and writing the report")
	stopped = true
	summary, err := guest.Close()
	if err != nil {
		return err
	}
	rep.Seconds = time.Since(start).Seconds()
	if err := out.JSON(rep); err != nil {
		return err
	}
	steps.Note("%s", summary)
	steps.Done("Wrote %s/report.json and screenshot.png", out.Path)
	return rep.verdict(shot)
}

func names() string {
	var all []string
	for _, a := range apps {
		all = append(all, a.name)
	}
	return strings.Join(all, ", ")
}

// findDesktop takes the user's own compositor if there is one, else it starts a
// headless sway, which puts windows side by side.
func findDesktop(ctx context.Context, root *lab.Root) (*compositor, error) {
	if display := os.Getenv("WAYLAND_DISPLAY"); display != "" {
		return userCompositor(root, display)
	}
	if root.InGuest() { // sway's renderer for this machine takes no dma-bufs, weston's does
		return nestedDesktop(ctx, root)
	}
	s, err := root.Sway(ctx, lab.SwayOptions{W: width, H: height, Config: "default_border normal 2\nseat * hide_cursor 100"})
	if err != nil {
		return nil, err
	}
	// Without a keyboard es2gears_wayland crashes, here as well as beside its compositor.
	user, err := inputcase.NewVirtual(s.Socket())
	if err != nil {
		s.Stop()
		return nil, err
	}
	return &compositor{
		name: "headless sway (set WAYLAND_DISPLAY to see the windows yourself)", socket: s.Socket(), env: s.Env(),
		bind: []string{s.RuntimeDir}, shoot: s.Screenshot, stop: func() { user.Close(); s.Stop() },
	}, nil
}

// windowTime bounds the time to a program's frames, in an emulated guest.
const windowTime = 2 * time.Minute

// find returns the window of a program, nil if there is none.
func (a *app) find(windows []proxy.WindowStats) *proxy.WindowStats {
	for i := range windows {
		w := &windows[i]
		// What the program is called is cut to 15 bytes by the kernel.
		if a.id != "" && w.App == a.id || strings.HasPrefix(a.name, w.Client) && w.Client != "" {
			return w
		}
	}
	return nil
}

func waitWindow(ctx context.Context, root *lab.Root, guest *clients.Guest, client clients.Client, a app) error {
	end, want := time.Now().Add(windowTime), a.frames
	if root.InGuest() {
		end, want = time.Now().Add(nestedTime), min(want, nestedFrames)
	}
	for {
		st, err := guest.Broker().Status()
		if err != nil {
			return err
		}
		var frames uint64
		if w := a.find(st.Windows); w != nil {
			for _, n := range w.Frames {
				frames += n
			}
		}
		if frames >= want {
			return nil
		}
		if ended, code, err := client.Ended(ctx); ended || err != nil {
			return errors.Join(err, fmt.Errorf("%s ended with code %d:\n%s", a.name, code, client.Log()))
		}
		if time.Now().After(end) {
			return fmt.Errorf("only %d frames of %s came; it says:\n%s\ngpubroker-guest says:\n%s", frames, a.name, client.Log(), guest.Log())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// fill takes over what the broker counted.
func (r *appsReport) fill(st *broker.Status) {
	r.DMABufs, r.Errors = st.Renderer.DMABufExport, st.Errors
	if st.Apps != nil {
		r.Apps = *st.Apps
	}
	r.Versions["gpubroker"] = st.Version
	for _, a := range apps {
		if w := a.find(st.Windows); w != nil {
			r.Windows = append(r.Windows, appWindow{a.name, w.Title, w.Transport, w.Frames, w.BytesCopied, w.Why})
		}
	}
}

// verdict says what in the report is not as it should be.
func (r *appsReport) verdict(shot image.Image) error {
	var errs []error
	if len(r.Windows) != len(apps) {
		errs = append(errs, fmt.Errorf("%d windows, not %d", len(r.Windows), len(apps)))
	}
	if !strings.Contains(strings.ToLower(r.GuestRenderer), "virgl") {
		errs = append(errs, fmt.Errorf("the guest rendered with %q and not with virgl", r.GuestRenderer))
	}
	for _, w := range r.Windows {
		if w.App == "weston-terminal" || !r.DMABufs {
			continue
		}
		if w.Frames["dmabuf"] == 0 || w.BytesCopied > 0 {
			errs = append(errs, fmt.Errorf("%s draws with OpenGL, and its frames went as %v with %d bytes copied: %s", w.App, w.Frames, w.BytesCopied, w.Why))
		}
	}
	if r.Errors > 0 {
		errs = append(errs, fmt.Errorf("%d commands failed; see gpubroker.log beside the report", r.Errors))
	}
	if colours, drawn := report.Colours(shot); colours < 200 || drawn < 0.05 {
		errs = append(errs, fmt.Errorf("the screenshot shows no windows: %d colours, %.0f %% of it drawn", colours, 100*drawn))
	}
	return errors.Join(errs...)
}

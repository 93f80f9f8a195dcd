package broker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/headless"
	"github.com/gpubroker/gpubroker/broker/qemudisplay"
	"github.com/gpubroker/gpubroker/broker/wayland"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/gbm"
	"github.com/gpubroker/gpubroker/virgl"
)

// VirglMode says whether the guest gets 3D.
type VirglMode uint8

// Values of --virgl.
const (
	VirglAuto VirglMode = iota // if the library is there and starts
	VirglOn                    // or fail
	VirglOff
)

// startRenderer makes the renderer on the render thread.
func startRenderer(loop *Loop, cfg *Config, relay *FenceRelay) (virgl.Renderer, error) {
	if cfg.Virgl == VirglOff {
		return virgl.None(relay.Signal), nil
	}
	if cfg.Renderer != nil {
		var r virgl.Renderer
		var err error
		loop.Call(func() { r, err = cfg.Renderer(relay.Signal) })
		return r, err
	}
	var errs []error
	for _, node := range candidateNodes(cfg.RenderNode) {
		var r virgl.Renderer
		var err error
		loop.Call(func() {
			r, err = virgl.New(virgl.Config{RenderNode: node, Log: cfg.Log.Named("virgl"), OnFence: relay.Signal})
		})
		if err == nil {
			return r, nil
		}
		errs = append(errs, err)
	}
	err := &OpError{Op: "start 3D renderer", Err: errors.Join(errs...)}
	if cfg.Virgl == VirglOn {
		return nil, err
	}
	cfg.Log.Warn("the guest gets 2D only", zap.Error(err))
	return virgl.None(relay.Signal), nil
}

// candidateNodes lists what to render on, best first; "" is surfaceless.
func candidateNodes(asked string) []string {
	if asked != "" {
		return []string{asked}
	}
	nodes, _ := filepath.Glob("/dev/dri/renderD*") // only a bad pattern fails
	sort.Strings(nodes)
	var usable []string
	for _, n := range nodes {
		if realGPU(n) {
			usable = append(usable, n)
		}
	}
	return append(usable, "")
}

// realGPU reports whether a render node belongs to hardware that can draw: vgem
// and vkms have render nodes too, for tests, and no GL driver.
func realGPU(node string) bool {
	link, err := os.Readlink(filepath.Join("/sys/class/drm", filepath.Base(node), "device/driver"))
	if err != nil {
		return false // vgem and vkms hang on the faux bus without a driver link
	}
	switch filepath.Base(link) {
	case "vgem", "vkms", "faux_driver":
		return false
	}
	return true
}

// openGBM opens the allocator of 2D buffers on the node that the renderer uses; nil
// where there is none, and then 2D resources live in shared memory. Called on the
// render thread.
func openGBM(node string, log *zap.Logger) *gbm.Device {
	if !filepath.IsAbs(node) {
		return nil
	}
	dev, err := gbm.OpenDevice(node)
	if err != nil {
		log.Warn("2D resources live in shared memory", zap.String("node", node), zap.Error(err))
		return nil
	}
	return dev
}

// openSink makes the display that the configuration asks for. setSocket, if not
// nil, takes QEMU's display socket; in, if not nil, what is done in the windows.
func openSink(cfg *Config, ev display.Events, in display.Input) (s display.Sink, setSocket func(*dmabuf.FD), err error) {
	switch cfg.Display {
	case "headless", "none":
		return headless.New(cfg.Mode), nil, nil
	case "qemu":
		q := openQEMU(cfg, ev)
		return q, q.Attach, nil
	case "wayland":
		w, err := openWayland(cfg, ev, in)
		if err != nil {
			return nil, nil, err
		}
		return w, nil, nil
	case "auto":
		w, err := openWayland(cfg, ev, in)
		if err == nil {
			return w, nil, nil
		}
		cfg.Log.Info("no Wayland compositor; QEMU's own display shows the guest, if QEMU has one", zap.Error(err))
		q := openQEMU(cfg, ev)
		return q, q.Attach, nil
	}
	return nil, nil, fmt.Errorf("broker: --display %q: want wayland, qemu, headless, none or auto", cfg.Display)
}

func openWayland(cfg *Config, ev display.Events, in display.Input) (*wayland.Sink, error) {
	modes := make([]display.Mode, cfg.Heads)
	for head := range modes {
		modes[head] = cfg.Mode
	}
	return wayland.NewSink(wayland.Config{
		Display: cfg.WaylandDisplay, Title: cfg.Title, AppID: "gpubroker", Modes: modes,
		Input: in, Resize: true, Fullscreen: cfg.Fullscreen, Log: cfg.Log.Named("wayland"), Events: ev,
	})
}

func openQEMU(cfg *Config, ev display.Events) *qemudisplay.Sink {
	return qemudisplay.New(qemudisplay.Config{Log: cfg.Log.Named("qemu"), Events: ev, Mode: cfg.Mode, DMABuf: cfg.QEMUDMABuf})
}

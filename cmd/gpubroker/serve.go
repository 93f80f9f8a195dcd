package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/metrics"
	"github.com/gpubroker/gpubroker/broker/qemudisplay"
	"github.com/gpubroker/gpubroker/dmabuf"
)

type serveOptions struct {
	socket, node, virgl     string
	fd                      int
	display, wayland, title string
	size                    string
	heads                   int
	fullscreen              bool
	hostmem, qemuDMABuf     string
	limits                  []string
	control, metrics        string
	vtest                   string
	input, touch            string
	apps                    appsOptions
	supervise               superviseOptions
	record                  recordOptions
	logLevel, logFormat     string
	logs                    io.Writer
}

func (o *serveOptions) register(f *pflag.FlagSet) {
	f.StringVarP(&o.socket, "socket-path", "s", "", "listen for QEMU on the unix socket `PATH`; one VM after the other")
	f.IntVarP(&o.fd, "fd", "f", -1, "serve the connected socket of descriptor `N` and exit when QEMU leaves")
	f.StringVarP(&o.node, "render-node", "r", "", "DRM render node `PATH` (default: the first that works, else software rendering)")
	f.StringVarP(&o.virgl, "virgl", "v", "auto", "3D for the guest: `on`, off, or auto (if virglrenderer starts)")
	f.Lookup("virgl").NoOptDefVal = "on"
	f.StringVar(&o.display, "display", "auto", "`WHO` shows the guest: wayland, qemu, headless, none, or auto")
	f.StringVar(&o.wayland, "wayland-display", "", "compositor's socket, a `NAME` or path (default $WAYLAND_DISPLAY)")
	f.StringVar(&o.title, "title", "gpubroker", "`TITLE` of the guest's windows")
	f.StringVar(&o.size, "size", "1280x800", "mode that the guest is told to prefer, `WxH` pixels")
	f.BoolVar(&o.fullscreen, "fullscreen", false, "start the Wayland windows fullscreen")
	f.IntVar(&o.heads, "heads", 1, "number `N` of scanouts, 1 to 16")
	f.StringVar(&o.hostmem, "hostmem", "1G", "window `SIZE` for blobs that the guest maps, a power of two (0: none); needs QEMU 11.1")
	f.StringSliceVar(&o.limits, "limit", nil, "what one guest may make, `NAME=N`: resources, owned (2D and host blobs), contexts, pieces (of guest memory), bytes (of host memory)")
	f.StringVar(&o.qemuDMABuf, "qemu-dmabuf", "auto", "dma-bufs to QEMU's display: on, off (for -display none), or auto (QEMU 8.2 and later), `WHEN`")
	f.StringVar(&o.input, "input-socket", "", "be the guest's keyboard and pointer on the unix socket `PATH`, from the Wayland windows")
	f.StringVar(&o.touch, "touch-socket", "", "be the guest's touch screen on the unix socket `PATH`")
	o.apps.register(f)
	f.StringVar(&o.vtest, "vtest", "", "also serve Mesa's virpipe clients, which need no guest, on the unix socket `PATH`")
	o.supervise.register(f)
	o.record.register(f)
	f.StringVar(&o.control, "control", "", "answer status requests on the unix socket `PATH`")
	f.StringVar(&o.metrics, "metrics", "", "serve metrics for Prometheus on `ADDRESS`: unix:PATH or HOST:PORT")
	f.StringVar(&o.logLevel, "log-level", "info", "`LEVEL` of the log: debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "console", "`FORMAT` of the log: console or json")
}

func newServe(logs io.Writer) *cobra.Command {
	o := &serveOptions{logs: logs}
	cmd := &cobra.Command{
		Use:   "serve (--socket-path PATH | --fd N | --vtest PATH)",
		Short: "Be the virtio-gpu device of a VM",
		Long: `serve waits for QEMU on a vhost-user socket and is the GPU of its guest, until it is
interrupted. When a QEMU leaves, the next one may connect.

Who shows the guest's screen (--display):
  wayland   a window per scanout in the compositor that $WAYLAND_DISPLAY names
  qemu      QEMU's own display (needs -device vhost-user-gpu-pci or vhost-user-vga)
  headless  nobody; frames are counted
  none      nobody; the guest has a GPU and no screen
  auto      wayland if a compositor answers, else qemu

What you do in a Wayland window reaches the guest through input devices with sockets
of their own (--input-socket: keyboard, pointer and wheel; --touch-socket: fingers):
  -chardev socket,id=input,path=PATH -device vhost-user-input-pci,chardev=input

With --apps the programs of the guest that draw with Wayland have windows of their own:
through gpubroker-guest, or through any client of virtio-gpu's cross-domain contexts
(QEMU 11.1, docs/cross-domain.md). --import-socket is a second device, through which
their shared memory gets here without copies:
  -chardev socket,id=imp,path=PATH -device vhost-user-test-device-pci,chardev=imp,\
    virtio-id=16,num_vqs=2,vq_size=256,config_size=16

With --vtest, OpenGL programs of this machine (or of containers) draw with the renderer
too, each in a context of its own; then there need not be a guest:
  GALLIUM_DRIVER=virpipe LIBGL_ALWAYS_SOFTWARE=true VTEST_SOCKET_NAME=PATH PROGRAM

Sockets of systemd take the place of these options: the units' FileDescriptorName is
gpu, input or touch.`,
		Example: `  gpubroker serve --socket-path $XDG_RUNTIME_DIR/gpu.sock --control $XDG_RUNTIME_DIR/gpu.control &
  qemu-system-x86_64 -machine q35,memory-backend=mem \
    -object memory-backend-memfd,id=mem,size=4G,share=on \
    -chardev socket,id=gpu,path=$XDG_RUNTIME_DIR/gpu.sock \
    -device vhost-user-gpu-pci,chardev=gpu -vga none -display none ...
  gpubroker serve --socket-path gpu.sock --sandbox --limit bytes=2G,contexts=64
  gpubroker serve --socket-path gpu.sock --apps --vsock 3:4673602 --policy work.toml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), o) },
	}
	o.register(cmd.Flags())
	return cmd
}

// config checks the options and turns them into the broker's.
func (o *serveOptions) config() (broker.Config, error) {
	c := broker.Config{
		Socket: o.socket, RenderNode: o.node, Display: o.display, WaylandDisplay: o.wayland,
		Title: o.title, Fullscreen: o.fullscreen, Heads: o.heads, Control: o.control, Metrics: o.metrics, Version: version(),
		InputSocket: o.input, TouchSocket: o.touch, Vtest: o.vtest,
	}
	bad := func(format string, args ...any) (broker.Config, error) {
		return c, usageError{fmt.Errorf(format, args...)}
	}
	var err error
	if c.Virgl, err = parseVirgl(o.virgl); err != nil {
		return bad("%w", err)
	}
	switch o.display {
	case "wayland", "qemu", "headless", "auto":
	case "none":
		if o.heads != 1 {
			return bad("--heads %d: there are none with --display none", o.heads)
		}
		c.Heads = 0
	default:
		return bad("--display %q: want wayland, qemu, headless, none or auto", o.display)
	}
	switch o.qemuDMABuf {
	case "auto":
	case "on":
		c.QEMUDMABuf = qemudisplay.DMABufOn
	case "off":
		c.QEMUDMABuf = qemudisplay.DMABufOff
	default:
		return bad("--qemu-dmabuf %q: want on, off or auto", o.qemuDMABuf)
	}
	c.Mode = display.Mode{Enabled: true}
	if n, err := fmt.Sscanf(o.size+"\n", "%dx%d\n", &c.Mode.W, &c.Mode.H); err != nil || n != 2 ||
		c.Mode.W < 64 || c.Mode.H < 64 || c.Mode.W > dmabuf.MaxDimension || c.Mode.H > dmabuf.MaxDimension {
		return bad("--size %q: want WIDTHxHEIGHT, each from 64 to %d", o.size, dmabuf.MaxDimension)
	}
	if o.heads < 1 || o.heads > display.MaxHeads {
		return bad("--heads %d: want 1 to %d", o.heads, display.MaxHeads)
	}
	if c.Limits, err = parseLimits(o.limits); err != nil {
		return bad("%v", err)
	}
	if c.HostMem, err = parseSize(o.hostmem); err != nil || c.HostMem&(c.HostMem-1) != 0 || c.HostMem != 0 && c.HostMem < 1<<20 {
		return bad("--hostmem %q: want a power of two such as 256M or 1G, or 0", o.hostmem)
	}
	if c.Apps, err = o.apps.config(o.wayland); err != nil {
		return c, err
	}
	if c.Apps != nil {
		c.Apps.Folder = o.supervise.folder
	}
	if o.supervise.sandbox && !o.supervise.on {
		return bad("--sandbox is for the process that --supervise starts: leave out --supervise=false")
	}
	if err := o.record.check(); err != nil {
		return bad("%w", err)
	}
	if o.metrics != "" {
		if err := metrics.CheckAddress(o.metrics); err != nil {
			return bad("--metrics %q: %w", o.metrics, err)
		}
	}
	log, err := newLog(o.logs, o.logLevel, o.logFormat)
	if err != nil {
		return c, usageError{err}
	}
	c.Log = log
	if o.supervise.worker >= 0 {
		c.Socket, c.InputSocket, c.TouchSocket = "", "", ""
		return c, nil // the supervisor has the sockets
	}
	if c.Activated, err = activated(); err != nil {
		return c, err
	}
	ways := 0
	for _, given := range []bool{o.socket != "", o.fd >= 0, c.Activated.GPU != nil} {
		if given {
			ways++
		}
	}
	if ways == 0 && o.vtest != "" {
		if o.supervise.on && o.supervise.asked() {
			return bad("--supervise needs a guest: --socket-path PATH or --fd N")
		}
		if o.supervise.sandbox {
			return bad("--sandbox needs a guest: --socket-path PATH or --fd N")
		}
		o.supervise.on = false
		return o.withoutGuest(c)
	}
	if ways != 1 {
		systemd := c.Activated.Any()
		c.Activated.Close()
		if systemd {
			return bad("want one of --socket-path PATH, --fd N and systemd's socket named gpu")
		}
		return bad("want either --socket-path PATH or --fd N (or --vtest PATH, for programs without a guest)")
	}
	if o.fd >= 0 {
		c.FD = dmabuf.NewFD(o.fd, "vhost-user socket")
	}
	return c, nil
}

// withoutGuest is the configuration of a broker for vtest clients alone. What is for a
// guest has no use then.
func (o *serveOptions) withoutGuest(c broker.Config) (broker.Config, error) {
	for name, given := range map[string]bool{
		"--input-socket": o.input != "" || c.Activated.Input != nil, "--touch-socket": o.touch != "" || c.Activated.Touch != nil, "--apps": c.Apps != nil,
		"--record": o.record.file != "", "--display " + o.display: o.display != "auto" && o.display != "none" && o.display != "headless",
	} {
		if given {
			c.Activated.Close()
			return c, usageError{fmt.Errorf("%s is for a guest: it needs --socket-path PATH or --fd N", name)}
		}
	}
	c.Display, c.Heads = "none", 0
	return c, nil
}

func serve(ctx context.Context, o *serveOptions) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	dmabuf.OnLeak(func(report string) { cfg.Log.Error("descriptor leak", zap.String("report", report)) })
	if o.supervise.on && o.supervise.worker < 0 {
		return supervised(ctx, cfg, o)
	}
	if o.supervise.worker >= 0 {
		if err := confined(cfg, o); err != nil {
			return err
		}
		var end func()
		if cfg.Keep, ctx, end, err = adopt(ctx, o.supervise.worker); err != nil {
			return err
		}
		defer end()
	}
	if cfg.Record, err = o.record.start(cfg.Log, o.supervise.worker >= 0); err != nil {
		if cfg.FD != nil {
			_ = cfg.FD.Close()
		}
		cfg.Activated.Close()
		return err
	}
	return serveHere(ctx, cfg)
}

// changeConfig is that of special builds.
var changeConfig func(*broker.Config)

// serveHere serves in this process.
func serveHere(ctx context.Context, cfg broker.Config) error {
	if changeConfig != nil {
		changeConfig(&cfg)
	}
	cfg.Log.Info("gpubroker", zap.String("version", cfg.Version))
	s, err := broker.NewServer(cfg)
	if err != nil {
		return err
	}
	notify("READY=1")
	err = s.Run(ctx)
	notify("STOPPING=1")
	st := s.Close()
	cfg.Log.Info("summary",
		zap.Uint64("frames_dmabuf", st.Frames.DMABuf), zap.Uint64("frames_shm", st.Frames.Shm),
		zap.Uint64("frames_skipped", st.Frames.Skipped), zap.Uint64("bytes_copied", st.BytesCopied),
		zap.Uint64("commands", st.Commands), zap.Uint64("errors", st.Errors), zap.Uint64("ring_errors", st.RingErrors),
		zap.String("flush_to_commit", strings.Join([]string{us(st.FlushToCommit.P50), us(st.FlushToCommit.P99)}, " / ")))
	_ = cfg.Log.Sync() // fails on terminals and pipes; there is nobody left to tell
	return err
}

func parseVirgl(s string) (broker.VirglMode, error) {
	switch s {
	case "auto":
		return broker.VirglAuto, nil
	case "on", "true":
		return broker.VirglOn, nil
	case "off", "false":
		return broker.VirglOff, nil
	}
	return 0, fmt.Errorf("--virgl %q: want on, off or auto", s)
}

// parseSize reads a number of bytes with an optional K, M, G or T.
func parseSize(s string) (uint64, error) {
	shift := 0
	if i := strings.IndexByte("KMGT", strings.ToUpper(s + " ")[max(len(s)-1, 0)]); i >= 0 {
		shift, s = 10*(i+1), s[:len(s)-1]
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, err
	}
	if n<<shift>>shift != n {
		return 0, strconv.ErrRange
	}
	return n << shift, nil
}

func us(v uint64) string { return fmt.Sprintf("%d µs", v) }

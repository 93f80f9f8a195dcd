package broker

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/input"
	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/metrics"
	"github.com/gpubroker/gpubroker/broker/qemudisplay"
	"github.com/gpubroker/gpubroker/broker/record"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/gbm"
	"github.com/gpubroker/gpubroker/virgl"
)

// Config says what a Server does.
type Config struct {
	// Socket is the path to listen on, one front-end after the other; or FD is
	// a connected socket to serve (ownership passes) until its peer leaves.
	Socket string
	FD     *dmabuf.FD
	// Activated are listening sockets instead (ownership passes).
	Activated Activated
	// Keep makes this the worker of a supervisor, which passes the front-ends on; it
	// stays the caller's.
	Keep *keep.Worker

	Virgl VirglMode
	// Renderer, if set, makes the renderer instead: on the render thread, with the function
	// that hears of its fences.
	Renderer   func(virgl.Fences) (virgl.Renderer, error)
	RenderNode string // empty: the first that works, else surfaceless

	Display        string // "wayland", "qemu", "headless", "none" (then Heads is 0) or "auto"
	WaylandDisplay string // empty: $WAYLAND_DISPLAY
	QEMUDMABuf     qemudisplay.DMABuf
	Title          string // of the Wayland windows
	Fullscreen     bool   // the Wayland windows start so
	Heads          int    // scanouts, up to display.MaxHeads
	Mode           display.Mode
	HostMem        uint64 // bytes of host-visible window for blobs, a power of two; 0: none
	Limits         Limits // what one guest may make

	// InputSocket and TouchSocket are the paths to listen on for the front-ends of
	// the guest's keyboard and pointer, and of its touch screen (package input);
	// empty: none. What is done in the display's windows goes there.
	InputSocket string
	TouchSocket string

	Apps *AppsConfig // nil: the guest's programs have no windows of their own

	// Vtest is the path to listen on for Mesa's virpipe clients (package vtest); empty:
	// none. With it there need not be a guest.
	Vtest string

	// Record, if set, is given what the guest puts into the queues. The server closes it.
	Record *record.Writer

	Control string // path of the control socket; empty: none
	Metrics string // where Prometheus scrapes, unix:PATH or HOST:PORT; empty: nowhere
	Version string
	Log     *zap.Logger
}

// Server is a running broker: one render thread, one device, one display.
type Server struct {
	cfg     Config
	log     *zap.Logger
	loop    *Loop
	rend    virgl.Renderer
	sink    display.Sink
	events  *SinkEvents
	dev     *Device
	ln      *vhostuser.Listener
	control *Control
	metrics *metrics.Server
	input   *input.Server   // nil if nobody asked for it
	apps    *appServer      // likewise
	vtest   *Vtest          // likewise
	udmabuf *dmabuf.UDMABuf // nil where the host has none
	gbm     *gbm.Device     // nil where there is no GPU; render thread only
}

// NewServer starts everything that can fail early: the socket, the renderer,
// the display. On error nothing is left behind.
func NewServer(cfg Config) (_ *Server, err error) {
	if (cfg.Heads == 0) != (cfg.Display == "none") || cfg.Heads < 0 || cfg.Heads > display.MaxHeads {
		return nil, fmt.Errorf("broker: --heads %d: want 1 to %d, or 0 with --display none", cfg.Heads, display.MaxHeads)
	}
	if err := cfg.checkSockets(); err != nil {
		return nil, err
	}
	if m := cfg.HostMem; m&(m-1) != 0 || m != 0 && m < 1<<20 {
		return nil, fmt.Errorf("broker: --hostmem %d: want a power of two from 1M on, or 0", m)
	}
	if cfg.Keep != nil && cfg.Keep.History().Quarantine {
		cfg.Virgl = VirglOff
		cfg.Log.Warn("3D is off: it killed too many workers of this VM")
		cfg.Vtest = "" // is nothing but 3D
	}
	s := &Server{cfg: cfg, log: cfg.Log}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err = s.listen(); err != nil {
		return nil, err
	}
	if err = s.listenInput(); err != nil {
		return nil, err
	}
	if s.loop, err = NewLoop(); err != nil {
		return nil, err
	}
	relay := &FenceRelay{}
	if s.rend, err = startRenderer(s.loop, &cfg, relay); err != nil {
		return nil, err
	}
	rend := s.rend // the guest's
	if cfg.Vtest != "" {
		if rend, relay, err = s.listenVtest(relay); err != nil {
			return nil, err
		}
	}
	info := s.rend.Info()
	s.log.Info("renderer", zap.String("library", info.Library), zap.String("node", info.Node),
		zap.Bool("gl", info.GL), zap.Bool("dmabuf_export", info.DMABufExport))
	s.events = NewSinkEvents(s.loop)
	var setSocket func(*dmabuf.FD)
	if s.sink, setSocket, err = openSink(&cfg, s.events, s.displayInput()); err != nil {
		return nil, err
	}
	s.log.Info("display", zap.String("sink", s.sink.Name()))
	dc := DeviceConfig{
		Loop: s.loop, Renderer: rend, Fences: relay, Sink: s.sink, SetDisplaySocket: setSocket,
		Heads: cfg.Heads, HostMem: cfg.HostMem, Limits: cfg.Limits, Log: s.log,
	}
	if cfg.Keep != nil {
		dc.Keep, dc.Page = cfg.Keep.Scope(keep.GPU), cfg.Keep.Page()
		s.loop.Call(func() { s.loop.SetPage(dc.Page) }) // not while the renderer starts, which may take long
	}
	if s.input != nil {
		dc.HeadSizes = s.input.SetHeads
		if s.sink.Name() != "wayland" {
			s.log.Warn("the guest has input devices, but only a Wayland display moves them", zap.String("sink", s.sink.Name()))
		}
	}
	if s.udmabuf, err = dmabuf.OpenUDMABuf(); err != nil {
		s.log.Info("guest pages cannot become dma-bufs; blobs that the guest draws are copied once", zap.Error(err))
		err = nil
	}
	dc.UDMABuf = s.udmabuf
	s.loop.Call(func() { s.gbm = openGBM(info.Node, s.log) })
	if s.gbm != nil {
		dc.Alloc2D = s.gbm
	}
	if cfg.Apps != nil {
		if s.apps, err = newAppServer(cfg.Apps, s.udmabuf, cfg.Keep, s.log); err != nil {
			return nil, err
		}
		dc.Apps = s.apps.channels()
	}
	s.record(&dc, &info)
	s.dev = NewDevice(dc)
	if s.apps != nil {
		s.apps.names.GPU = s.dev
		if err = s.apps.listen(cfg.Apps, s.log); err != nil {
			return nil, err
		}
	}
	s.events.Bind(s.dev)
	if cfg.Control != "" {
		if s.control, err = ListenControl(cfg.Control, s.Status, NewShots(s.dev).Request()); err != nil {
			return nil, err
		}
	}
	if cfg.Metrics != "" {
		if s.metrics, err = metrics.Listen(cfg.Metrics, s.snapshot, s.log.Named("metrics")); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Status describes the broker now; table says whether to list the tables. Any
// goroutine but the render thread.
func (s *Server) Status(table bool) Status {
	st := s.dev.Status(table)
	st.Version, st.PID = s.cfg.Version, os.Getpid()
	if s.cfg.Keep != nil {
		h := s.cfg.Keep.History()
		st.Worker = &h
	}
	s.apps.status(&st)
	if s.vtest != nil {
		st.Vtest = s.vtest.Status()
	}
	return st
}

// Run serves front-ends until ctx ends; with Config.FD only the one there.
func (s *Server) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	input, apps, vtest := s.runInput(ctx), s.apps.run(ctx), s.runVtest(ctx)
	err := s.runGPU(ctx)
	stop()
	return errors.Join(err, <-input, <-apps, <-vtest)
}

func (s *Server) runGPU(ctx context.Context) error {
	if s.ln == nil && s.cfg.FD == nil && s.cfg.Keep == nil { // there is no guest, only vtest clients
		<-ctx.Done()
		return nil
	}
	vc := vhostuser.Config{Device: s.dev, Executor: s.loop, Log: s.log.Named("vhost-user")}
	if s.cfg.HostMem > 0 {
		vc.Shmem = &vhostuser.ShmemConfig{}
		vc.Shmem.Sizes[virtiogpu.ShmIDHostVisible] = s.cfg.HostMem
	}
	if s.cfg.Keep != nil {
		s.cfg.Keep.Config(keep.GPU, &vc)
	}
	b, err := vhostuser.NewBackend(vc)
	if err != nil {
		return err
	}
	if s.cfg.Keep != nil {
		s.cfg.Keep.Ready()
		return b.Run(ctx, s.ln)
	}
	if s.cfg.FD == nil {
		s.log.Info("listening", zap.String("socket", s.ln.Path()))
		return b.Run(ctx, s.ln)
	}
	fd := s.cfg.FD
	s.cfg.FD = nil
	conn, err := vhostuser.FromFD(fd)
	if err != nil {
		return err
	}
	return b.Serve(ctx, conn)
}

// Close ends everything and returns the last status. It is safe after a failed
// NewServer and may be called once.
func (s *Server) Close() Status {
	var last Status
	if s.control != nil {
		_ = s.control.Close()
	}
	if s.metrics != nil {
		_ = s.metrics.Close()
	}
	if s.ln != nil {
		_ = s.ln.Close()
	}
	if s.cfg.FD != nil {
		_ = s.cfg.FD.Close()
	}
	s.cfg.Activated.Close()
	if s.vtest != nil && s.dev == nil {
		_ = s.vtest.Close()
	}
	if s.dev != nil {
		last = s.Status(false)
		if s.vtest != nil {
			_ = s.vtest.Close()
		}
		s.events.Bind(nil)
		s.apps.close() // before the device: its clients use it
		s.dev.Close()
	}
	if s.sink != nil {
		_ = s.sink.Close()
	}
	if s.input != nil {
		_ = s.input.Close()
	}
	if s.udmabuf != nil {
		_ = s.udmabuf.Close()
	}
	if s.loop != nil {
		s.loop.Call(func() {
			if s.gbm != nil {
				_ = s.gbm.Close()
			}
			if s.rend != nil {
				_ = s.rend.Close()
			}
		})
		_ = s.loop.Close()
	}
	if s.cfg.Record != nil {
		if err := s.cfg.Record.Close(); err != nil {
			s.log.Warn("the recording is not whole", zap.String("file", s.cfg.Record.Path()), zap.Error(err))
		}
	}
	return last
}

// record begins the recording, if there is to be one.
func (s *Server) record(dc *DeviceConfig, info *virgl.Info) {
	w := s.cfg.Record
	if w == nil {
		return
	}
	l := dc.Limits.withDefaults()
	w.Info(&record.Info{
		Version: s.cfg.Version, Renderer: info.Library, Node: info.Node, GL: info.GL, Heads: dc.Heads, Width: s.cfg.Mode.W, Height: s.cfg.Mode.H,
		HostMem: dc.HostMem, Apps: dc.Apps != nil,
		Limits: record.Limits{Resources: l.Resources, Owned: l.Owned, Contexts: l.Contexts, Bytes: l.Bytes, Pieces: l.Pieces},
	})
	dc.Record = w
	s.log.Info("recording what the guest does, with its pixels", zap.String("file", w.Path()))
}

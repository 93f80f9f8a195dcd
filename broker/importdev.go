package broker

import (
	"context"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/headless"
	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl"
)

// importDevice is a second virtio-gpu device of the VM, without 3D and without
// scanouts: the guest's kernel imports memory of its programs into it, which gives
// that memory a resource id, and nothing else.
type importDevice struct {
	log  *zap.Logger
	loop *Loop
	dev  *Device
	ln   *vhostuser.Listener
	back *vhostuser.Backend
}

// newImportDevice listens at path. udmabuf may be nil: then what is imported is
// copied.
func newImportDevice(path string, udmabuf *dmabuf.UDMABuf, kept *keep.Worker, log *zap.Logger) (m *importDevice, err error) {
	m = &importDevice{log: log}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if kept.Has(keep.Import) {
		m.ln = kept.Listener(keep.Import)
	} else if m.ln, err = vhostuser.Listen(path); err != nil {
		return nil, err
	}
	if m.loop, err = NewLoop(); err != nil {
		return nil, err
	}
	relay := &FenceRelay{}
	dc := DeviceConfig{
		Loop: m.loop, Renderer: virgl.None(relay.Signal), Fences: relay, Sink: headless.New(display.Mode{}),
		UDMABuf: udmabuf, Import: true, Log: log,
	}
	vc := vhostuser.Config{Executor: m.loop, Log: log}
	if kept.Has(keep.Import) {
		dc.Keep = kept.Scope(keep.Import)
		kept.Config(keep.Import, &vc)
	}
	m.dev = NewDevice(dc)
	vc.Device = m.dev
	m.back, err = vhostuser.NewBackend(vc)
	return m, err
}

// run serves front-ends until ctx ends. The guest's screen goes on without this
// device, so an error is logged at once.
func (m *importDevice) run(ctx context.Context) error {
	m.log.Info("listening", zap.String("socket", m.ln.Path()))
	err := m.back.Run(ctx, m.ln)
	if err != nil {
		m.log.Error("import device", zap.Error(err))
	}
	return err
}

func (m *importDevice) close() {
	if m == nil {
		return
	}
	if m.ln != nil {
		_ = m.ln.Close()
	}
	if m.dev != nil {
		m.dev.Close()
	}
	if m.loop != nil {
		_ = m.loop.Close()
	}
}

// ImportStatus is the import device.
type ImportStatus struct {
	Connected bool   `json:"connected"`
	Commands  uint64 `json:"commands"`
	Errors    uint64 `json:"errors"`
	Resources int    `json:"resources"`
	Bytes     uint64 `json:"bytes"`    // of guest memory in them
	UDMABuf   bool   `json:"udmabuf"`  // it goes out without a copy
	Attached  int    `json:"attached"` // of Resources, those that a client has open
}

func (m *importDevice) status() *ImportStatus {
	if m == nil {
		return nil
	}
	s := &ImportStatus{}
	m.loop.Call(func() {
		d := m.dev
		s.Connected, s.Resources, s.UDMABuf = d.mem != nil, len(d.resources), d.cfg.UDMABuf != nil
		s.Commands, s.Errors = d.stats.Commands.Load(), d.stats.Errors.Load()
		for _, r := range d.resources {
			if r.backing != nil {
				s.Bytes += r.backing.Size
			}
			if r.handles > 0 {
				s.Attached++
			}
		}
	})
	return s
}

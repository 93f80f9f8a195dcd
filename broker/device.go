package broker

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/crossdomain"
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/input"
	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/record"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/virtq"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
	"github.com/gpubroker/gpubroker/virgl"
)

// Allocator makes the buffers of 2D resources (gbm.Device is one). Called on
// the render thread.
type Allocator interface {
	Alloc2D(w, h uint32, f dmabuf.Fourcc) (*dmabuf.Buffer, error)
}

// DeviceConfig says what a Device is made of.
type DeviceConfig struct {
	Loop     *Loop          // the render thread
	Renderer virgl.Renderer // made on the render thread; the device does not close it
	Fences   *FenceRelay    // what Renderer was given as its Fences
	Sink     display.Sink
	// SetDisplaySocket, if set, takes QEMU's display socket (ownership passes).
	// Without it the device holds the socket, unused.
	SetDisplaySocket func(*dmabuf.FD)
	// Alloc2D, if set, is tried before shared memory for 2D resources.
	Alloc2D Allocator
	// UDMABuf, if set, makes dma-bufs of guest pages and of our own. The device
	// does not close it.
	UDMABuf *dmabuf.UDMABuf
	// HostMem is the size of the host-visible window in bytes, a power of two; 0:
	// there is none.
	HostMem uint64
	// Heads is the number of scanouts that the guest gets, up to display.MaxHeads.
	Heads int // 0 for a guest without a screen
	// Limits bound what the guest can make the device hold.
	Limits Limits
	// HeadSizes, if set, hears of the sizes of the heads' pictures when one changes.
	// Called on the render thread; it returns at once.
	HeadSizes func([]input.Size)
	// Apps, if set, serves the channels of cross-domain contexts, which are offered
	// then.
	Apps *crossdomain.Channels
	// Import says that this is the device that imports guest memory: no scanouts, no
	// contexts, and a resource belongs to the first client that names it.
	Import bool
	// Keep, if set, keeps what must outlive this process; Page is where the device says
	// what it does.
	Keep *keep.Scope
	Page *keep.Page
	// Record, if set, is given everything that the guest puts into the queues. It stays
	// the caller's.
	Record *record.Writer
	Log    *zap.Logger
}

// FenceRelay stands between the renderer, which needs its fence function before
// the device exists, and the device.
type FenceRelay struct{ f virgl.Fences }

// Signal is the virgl.Fences to give to the renderer.
func (r *FenceRelay) Signal(ctx, id uint32) {
	if r.f != nil {
		r.f(ctx, id)
	}
}

var (
	_ vhostuser.Device      = (*Device)(nil)
	_ vhostuser.ChannelUser = (*Device)(nil)
	_ vhostuser.Restorer    = (*Device)(nil)
)

// Device is the virtio-gpu device of one VM; it implements vhostuser.Device.
// Except where a method says otherwise everything happens on the render thread.
type Device struct {
	cfg         DeviceConfig
	log         *zap.Logger
	rend        virgl.Renderer
	info        virgl.Info
	sink        display.Sink
	meter       shmfallback.Meter // copies of frames
	cursorMeter shmfallback.Meter // copies of pointer images, which never go as dma-bufs
	mem         *guestmem.Map
	channel     *vhostuser.Channel // requests to the front-end; nil if it has none
	features    uint64             // negotiated
	modeA       bool               // the front-end is QEMU's own gpu device
	window      window
	waiting     []*suspended
	display     *dmabuf.FD // QEMU's display socket while nobody uses it

	ctrl, cursor queue
	chain        virtq.Chain // the chain being served; responses are written at once
	req          request     // its command
	cmd          []byte      // its bytes, copied out of guest memory
	out          []byte      // its response

	limits    Limits
	used      usage // never less than what the resources hold
	resources map[uint32]*resource
	lingering map[*resource]struct{} // given up by the guest, and open
	contexts  map[uint32]*guestContext
	scanouts  [display.MaxHeads]scanout
	cursors   [display.MaxHeads]cursorState

	fences     timeline              // of commands without a ring
	rings      map[ringKey]*timeline // of contexts' rings
	lastFence  uint32                // id given last
	lastHold   uint64                // number of the fence that a cross-domain context was given last
	lastSubmit uint64                // how many times contexts gave the GPU work
	presents   presentQueue
	drawWaits  []*drawWait        // clients' frames
	capsets    []virgl.CapsetInfo // that the guest can ask for
	namings    []*naming          // clients' namings of resources that do not exist yet
	epoch      uint64             // how often the device was reset
	pacer      display.Pacer      // the sink, if it is one
	caps       [display.MaxHeads]paceTimer

	// Reused, so that a frame allocates nothing.
	frame   display.Frame
	xfer    virgl.Transfer
	seg     [1][]byte
	scratch []byte

	eventsRead atomic.Uint32 // VIRTIO_GPU_EVENT_*, bits set for the guest to read
	stats      Counters

	onRetry func()               // bound once, so that posting allocates nothing
	onIdle  func(*dmabuf.Buffer) // likewise
	quiet   logLimit

	running     sync.WaitGroup // goroutines of cross-domain contexts
	warnedSmall bool
	restoring   bool // Restore runs

	rec   *recorder // nil: nothing is recorded
	plays playing   // no guest is there: a recording is played
}

// queue is one virtqueue while it runs.
type queue struct {
	q     *virtq.Queue
	kick  *dmabuf.FD
	serve func(ready bool)
}

// NewDevice makes the device. Called on any goroutine; Attach follows.
func NewDevice(cfg DeviceConfig) *Device {
	d := &Device{
		cfg: cfg, log: cfg.Log, rend: cfg.Renderer, sink: cfg.Sink,
		resources: map[uint32]*resource{}, lingering: map[*resource]struct{}{}, contexts: map[uint32]*guestContext{}, rings: map[ringKey]*timeline{},
		out: make([]byte, 0, 4096), cmd: make([]byte, 0, 64<<10),
	}
	d.info = d.rend.Info()
	d.capsets = d.offerCapsets()
	d.limits = cfg.Limits.withDefaults()
	d.onRetry, d.onIdle = d.retryCopies, d.frameIdle
	d.ctrl.serve = func(kicked bool) { d.serve(&d.ctrl, virtiogpu.ControlQueue, kicked) }
	d.cursor.serve = func(kicked bool) { d.serve(&d.cursor, virtiogpu.CursorQueue, kicked) }
	d.window.size = cfg.HostMem
	d.pacer, _ = cfg.Sink.(display.Pacer)
	if cfg.Record != nil {
		d.rec = newRecorder(cfg.Record, d.log)
	}
	cfg.Fences.f = d.fenceSignalled
	if fd := d.rend.PollFD(); fd >= 0 {
		cfg.Loop.Call(func() { cfg.Loop.Watch(fd, func(bool) { d.rend.Poll() }) })
	}
	return d
}

// Close lets go of everything and leaves the loop. Called on any goroutine but
// the render thread; the front-end is gone before.
func (d *Device) Close() {
	d.cfg.Loop.Call(func() {
		d.Detach()
		if fd := d.rend.PollFD(); fd >= 0 {
			d.cfg.Loop.Unwatch(fd)
		}
		d.cfg.Fences.f = nil
	})
	d.running.Wait()
}

// Features returns the virtio feature bits of the device. Any goroutine.
func (d *Device) Features() uint64 {
	if d.cfg.Import {
		return 1 << virtiogpu.FeatureResourceBlob
	}
	f := uint64(1)<<virtiogpu.FeatureEDID | 1<<virtiogpu.FeatureResourceUUID | 1<<virtiogpu.FeatureResourceBlob
	// Linux makes contexts only where the device says that it has 3D. One whose only
	// capability set is cross-domain leaves Mesa with its software renderer.
	if d.info.GL || d.cfg.Apps != nil {
		f |= 1<<virtiogpu.FeatureVirgl | 1<<virtiogpu.FeatureContextInit
	}
	return f
}

// ReadConfig fills p with the config space. Any goroutine.
func (d *Device) ReadConfig(p []byte) {
	c := virtiogpu.Config{
		EventsRead:  d.eventsRead.Load(),
		NumScanouts: uint32(d.cfg.Heads),
		NumCapsets:  uint32(len(d.capsets)),
	}
	var buf [virtiogpu.SizeConfig]byte
	n := copy(p, c.Append(buf[:0]))
	clear(p[n:])
}

// WriteConfig takes a write to the config space: only events_clear means
// anything. The front-end sends the whole struct. Any goroutine.
func (d *Device) WriteConfig(off uint32, p []byte) error {
	const at = 4 // offset of events_clear
	if off > at || uint64(off)+uint64(len(p)) < at+4 {
		return nil
	}
	bits := binary.LittleEndian.Uint32(p[at-off:])
	d.eventsRead.And(^bits)
	return nil
}

// Attach takes the guest's memory map.
func (d *Device) Attach(mem *guestmem.Map) { d.mem = mem }

// BackendChannel takes the channel for requests to the front-end.
func (d *Device) BackendChannel(ch *vhostuser.Channel) { d.channel = ch }

// SetFeatures takes what was agreed on. Mode A of QEMU never agrees on blobs and
// context init; commands of those are refused then.
func (d *Device) SetFeatures(bits uint64) error {
	d.features = bits
	d.log.Debug("features agreed", zap.Uint64("bits", bits))
	return nil
}

// QueueStart takes a ring that runs from now on.
func (d *Device) QueueStart(index int, q *virtq.Queue, kick *dmabuf.FD, fresh bool) {
	u := d.queueAt(index)
	if u == nil {
		d.log.Warn("front-end started a queue that the device does not have", zap.Int("queue", index), zap.Int("limit", 1))
		_ = kick.Close()
		return
	}
	d.stopQueue(u)
	if fresh && index == int(virtiogpu.ControlQueue) {
		d.Reset() // a driver that starts from nothing expects nothing to be left
	}
	u.q, u.kick = q, kick
	if index == int(virtiogpu.ControlQueue) {
		d.reclaim()
		d.completeFences() // what cross-domain contexts released meanwhile
	}
	d.inherit(q, virtiogpu.QueueKind(index))
	d.cfg.Loop.Watch(kick.Int(), u.serve)
	d.cfg.Loop.Again() // a kick may have come while nobody watched
	d.log.Debug("queue started", zap.Int("queue", index), zap.Bool("fresh", fresh))
}

// QueueStop gives the ring up. Work that the renderer still does for it is
// completed first as far as it can be without waiting; the guest's driver gives
// the rest up, as virtio says of a reset device.
func (d *Device) QueueStop(index int) {
	u := d.queueAt(index)
	if u == nil || u.q == nil {
		return
	}
	if index == int(virtiogpu.ControlQueue) {
		d.stopWaiting()
		d.finishFences()
	}
	d.stopQueue(u)
	d.log.Debug("queue stopped", zap.Int("queue", index))
}

func (d *Device) queueAt(index int) *queue {
	switch index {
	case int(virtiogpu.ControlQueue):
		return &d.ctrl
	case int(virtiogpu.CursorQueue):
		return &d.cursor
	}
	return nil
}

func (d *Device) stopQueue(u *queue) {
	if u.q == nil {
		return
	}
	d.cfg.Loop.Unwatch(u.kick.Int())
	_ = u.kick.Close()
	u.q, u.kick = nil, nil
}

// DisplaySocket passes QEMU's display socket on. A display that is not QEMU's has
// no use for it, but closing it would make QEMU read its end for ever ("failed to
// read msg header").
func (d *Device) DisplaySocket(fd *dmabuf.FD) {
	d.setModeA(true)
	if d.cfg.SetDisplaySocket != nil {
		d.cfg.SetDisplaySocket(fd)
		return
	}
	_ = d.display.Close()
	d.display = fd
}

// Reset destroys every resource, context and scanout.
func (d *Device) Reset() {
	if len(d.resources)+len(d.contexts) > 0 {
		d.log.Info("device reset", zap.Int("resources", len(d.resources)), zap.Int("contexts", len(d.contexts)))
	}
	d.fences.clear()
	clear(d.rings)
	d.presents.clear()
	d.epoch++
	d.failDrawWaits(proxy.ErrGone)
	d.failNamings(proxy.ErrGone)
	for _, s := range d.waiting {
		s.done = true
	}
	d.waiting = nil
	d.forgetPlacements()
	for h := range d.scanouts {
		d.disableHead(h)
		d.hideCursor(h)
	}
	for _, r := range d.resources {
		d.destroyResource(r, proxy.ErrGone)
	}
	for id, c := range d.contexts {
		c.dropPins()
		if c.cross != nil {
			c.cross.Close(true)
			continue
		}
		d.rend.DestroyContext(id)
	}
	clear(d.contexts)
	d.rend.Reset()
	d.eventsRead.Store(0)
	if d.rec != nil {
		d.recordReset()
	}
}

// Detach ends the VM's use of the device.
func (d *Device) Detach() {
	d.stopQueue(&d.ctrl)
	d.stopQueue(&d.cursor)
	d.stopPacing()
	d.Reset()
	_ = d.display.Close()
	d.display = nil
	d.mem = nil
	d.setModeA(false)
}

// setModeA notes whether the front-end is QEMU's own gpu device, which does not let
// the broker tell the guest of a new mode.
func (d *Device) setModeA(on bool) {
	d.modeA = on
	if r, ok := d.cfg.Sink.(display.Resizer); ok {
		r.Resizable(!on)
	}
}

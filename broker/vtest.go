package broker

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/headless"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/vtest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl"
)

// VtestConfig says how programs without a guest are served.
type VtestConfig struct {
	Path     string // of the socket
	Loop     *Loop
	Renderer virgl.Renderer // not closed
	Fences   *FenceRelay    // what Renderer was given as its Fences
	// Limits bound what all clients together can make; one may have half of it.
	Limits  Limits
	Clients int // at a time; 0: vtest.DefaultClients
	Log     *zap.Logger
}

// Vtest serves Mesa's virpipe clients (package vtest) on a device without a guest: its
// tables and limits are theirs.
type Vtest struct {
	cfg VtestConfig
	dev *Device
	srv *vtest.Server
}

// ListenVtest makes the socket. The caller closes, not on the render thread.
func ListenVtest(cfg VtestConfig) (*Vtest, error) {
	if info := cfg.Renderer.Info(); !info.GL {
		return nil, &OpError{Op: "serve", Object: cfg.Path, Err: fmt.Errorf("vtest clients need 3D: %w: the renderer is %q", virgl.ErrNotSupported, info.Library)}
	}
	v := &Vtest{cfg: cfg}
	gpu := &vtestGPU{}
	var err error
	v.srv, err = vtest.Listen(vtest.Config{Path: cfg.Path, Loop: cfg.Loop, GPU: gpu, Clients: cfg.Clients, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	v.dev = NewDevice(DeviceConfig{
		Loop: cfg.Loop, Renderer: cfg.Renderer, Fences: cfg.Fences, Sink: headless.New(display.Mode{}),
		Limits: cfg.Limits, Log: cfg.Log,
	})
	gpu.d = v.dev
	return v, nil
}

// listenVtest makes the socket and splits the renderer, whose fences base hears. It
// returns what the guest's device gets.
func (s *Server) listenVtest(base *FenceRelay) (virgl.Renderer, *FenceRelay, error) {
	guest, vtest := &FenceRelay{}, &FenceRelay{}
	share := newRendererShare(s.rend, guest, vtest)
	base.f = share.signal
	var err error
	s.vtest, err = ListenVtest(VtestConfig{
		Path: s.cfg.Vtest, Loop: s.loop, Renderer: share.high, Fences: vtest, Limits: s.cfg.Limits, Log: s.log.Named("vtest"),
	})
	return share.low, guest, err
}

// runVtest serves the clients, if they are to be served.
func (s *Server) runVtest(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	if s.vtest == nil {
		done <- nil
		return done
	}
	go func() {
		err := s.vtest.Run(ctx)
		if err != nil {
			s.log.Error("vtest", zap.Error(err))
		}
		done <- err
	}()
	return done
}

// Run serves clients until ctx ends.
func (v *Vtest) Run(ctx context.Context) error { return v.srv.Run(ctx) }

// Close ends every client.
func (v *Vtest) Close() error {
	err := v.srv.Close()
	v.dev.Close()
	return err
}

// VtestStatus is the part of the status about programs without a guest.
type VtestStatus struct {
	vtest.Status
	Contexts  int    `json:"contexts"`
	Resources int    `json:"resources"`
	Bytes     uint64 `json:"bytes"` // of host memory behind resources, about
	Submits   uint64 `json:"submits"`
	Fences    uint64 `json:"fences"`
}

// Status describes it. Not on the render thread.
func (v *Vtest) Status() *VtestStatus {
	s := &VtestStatus{}
	v.cfg.Loop.Call(func() {
		d := v.dev
		d.countUsage()
		s.Status = v.srv.Status()
		s.Contexts, s.Resources, s.Bytes = len(d.contexts), len(d.resources), d.used.bytes
		s.Submits, s.Fences = d.stats.Submits.Load(), d.stats.Fences.Load()
	})
	return s
}

// vtestGPU is the device as vtest clients see it.
type vtestGPU struct {
	d                *Device
	lastCtx, lastRes uint32
}

var (
	_ vtest.GPU     = (*vtestGPU)(nil)
	_ vtest.Context = (*vtestContext)(nil)
)

func (g *vtestGPU) Capsets() []virgl.CapsetInfo { return g.d.capsets }

func (g *vtestGPU) FillCapset(id, version uint32, dst []byte) error {
	return g.d.rend.FillCapset(id, version, dst)
}

// nextID counts on from last, past what is in use. Ids come back as late as can be:
// virglrenderer before 1.0 remembers some too long.
func nextID[T any](last *uint32, used map[uint32]T) uint32 {
	for {
		*last = (*last + 1) | ownIDs
		if _, taken := used[*last]; !taken {
			return *last
		}
	}
}

func (g *vtestGPU) NewContext(capset uint32, name string, signalled func(uint32)) (vtest.Context, error) {
	d := g.d
	if n := len(d.contexts); n >= d.limits.Contexts {
		return nil, fmt.Errorf("%w: %d contexts, limit %d", virtiogpu.ErrOutOfMemory, n, d.limits.Contexts)
	}
	c, err := d.createContext(nextID(&g.lastCtx, d.contexts), capset, name)
	if err != nil {
		return nil, err
	}
	c.onFence = signalled
	l := d.limits
	l.Resources, l.Owned, l.Bytes = (l.Resources+1)/2, (l.Owned+1)/2, (l.Bytes+1)/2
	return &vtestContext{g: g, d: d, ctx: c, limits: l, resources: map[uint32]*resource{}, pages: map[uint32]*dmabuf.FD{}}, nil
}

// vtestContext is a client's context and what it made.
type vtestContext struct {
	g         *vtestGPU
	d         *Device
	ctx       *guestContext
	limits    Limits // of this client
	used      usage  // of its resources
	resources map[uint32]*resource
	spare     []shmPage             // memory of resources that are gone
	pages     map[uint32]*dmabuf.FD // descriptors of memory that will be spare, by resource
}

// shmPage is a page of shared memory. Mesa makes a resource of a few bytes for each
// command stream, as its fence, and a memfd with a mapping is the dearest part of that. A
// page goes only to who had it before.
type shmPage struct {
	fd  *dmabuf.FD
	mem []byte
}

// maxPages is how many pages of a client, in use and spare, keep their descriptor.
const maxPages = 16

// admit says which limit of this client a new resource would break.
func (c *vtestContext) admit(r *resource) error {
	if n := len(c.resources); n >= c.limits.Resources {
		return fmt.Errorf("%w: %d resources, limit %d", virtiogpu.ErrOutOfMemory, n, c.limits.Resources)
	}
	u := c.used
	u.add(r)
	if u.over(&c.limits) {
		return fmt.Errorf("%w: the client's resources hold %d descriptors (limit %d), %d bytes (limit %d)",
			virtiogpu.ErrOutOfMemory, u.owned, c.limits.Owned, u.bytes, c.limits.Bytes)
	}
	c.used = u
	return nil
}

// drop takes what a resource was counted as off again.
func (c *vtestContext) drop(r *resource) {
	var u usage
	u.add(r)
	c.used.owned -= u.owned
	c.used.bytes -= u.bytes
	c.used.pieces -= u.pieces
}

// share makes a resource's shared memory: the descriptor is the caller's.
func (c *vtestContext) share(r *resource, size uint64) (*dmabuf.FD, error) {
	if size > c.limits.Bytes {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", virtiogpu.ErrOutOfMemory, size, c.limits.Bytes)
	}
	whole := dmabuf.PageAlign(int64(size))
	if n := len(c.spare); n > 0 && whole == int64(len(c.spare[n-1].mem)) {
		fd, err := c.spare[n-1].fd.Dup()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", virtiogpu.ErrOutOfMemory, err)
		}
		r.shm, c.pages[r.args.ID] = c.spare[n-1].mem, c.spare[n-1].fd
		c.spare = c.spare[:n-1]
		clear(r.shm)
		return fd, nil
	}
	fd, err := dmabuf.NewMemfd("vtest resource", whole)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", virtiogpu.ErrOutOfMemory, err)
	}
	mem, err := dmabuf.Map(fd, whole, true)
	if err != nil {
		_ = fd.Close()
		return nil, fmt.Errorf("%w: %w", virtiogpu.ErrOutOfMemory, err)
	}
	r.shm = mem
	if whole == dmabuf.PageAlign(1) && len(c.pages)+len(c.spare) < maxPages {
		if kept, err := fd.Dup(); err == nil {
			c.pages[r.args.ID] = kept
		}
	}
	return fd, nil
}

// spareMemory takes the memory of a resource that the renderer does not know, if it is to
// be used again.
func (c *vtestContext) spareMemory(r *resource) {
	if fd := c.pages[r.args.ID]; fd != nil {
		delete(c.pages, r.args.ID)
		c.spare = append(c.spare, shmPage{fd, r.shm})
		r.shm = nil
	}
}

// Create implements vtest.Context.
func (c *vtestContext) Create(a *virgl.ResourceArgs, shm uint64) (id uint32, mem *dmabuf.FD, err error) {
	res := &resource{args: *a}
	res.args.ID = nextID(&c.g.lastRes, c.d.resources)
	if shm > 0 {
		if mem, err = c.share(res, shm); err != nil {
			return 0, nil, err
		}
	}
	if err = c.make(res, func() error { return c.d.create3D(res) }); err != nil {
		_ = mem.Close()
		return 0, nil, err
	}
	if shm > 0 {
		if err = c.d.rend.AttachBacking(res.id, [][]byte{res.shm[:shm]}); err != nil {
			c.Unref(res.id)
			_ = mem.Close()
			return 0, nil, err
		}
	}
	c.attach(res)
	return res.id, mem, nil
}

// make counts a resource and makes it. A resource that cannot be made loses its memory.
func (c *vtestContext) make(res *resource, do func() error) error {
	err := c.admit(res)
	if err == nil {
		if err = do(); err != nil {
			c.drop(res)
		}
	}
	if err != nil {
		c.spareMemory(res)
		res.freeMemory()
		return err
	}
	c.resources[res.id] = res
	return nil
}

func (c *vtestContext) attach(res *resource) {
	c.d.rend.AttachResource(c.ctx.id, res.id)
	res.attachCtx(c.ctx.id)
}

// CreateBlob implements vtest.Context.
func (c *vtestContext) CreateBlob(a *virgl.BlobArgs) (uint32, *dmabuf.FD, error) {
	br, ok := c.d.rend.(virgl.BlobRenderer)
	if !ok {
		return 0, nil, fmt.Errorf("blobs: %w", virgl.ErrNotSupported)
	}
	res := &resource{id: nextID(&c.g.lastRes, c.d.resources), kind: kindBlob, blob: &blob{mem: a.Mem, flags: a.Flags, size: a.Size}}
	res.args.ID = res.id
	args := *a
	args.ID, args.Ctx = res.id, c.ctx.id
	var mem *dmabuf.FD
	var segs [][]byte
	var err error
	if a.Mem != virtiogpu.BlobMemHost3D {
		if mem, err = c.share(res, a.Size); err != nil {
			return 0, nil, err
		}
		segs = [][]byte{res.shm[:a.Size]}
	}
	err = c.make(res, func() error {
		if err := c.d.admit(res); err != nil {
			return err
		}
		return br.CreateBlob(&args, segs)
	})
	if err != nil {
		_ = mem.Close()
		return 0, nil, err
	}
	res.blob.twin, res.blob.drawn = true, a.Mem != virtiogpu.BlobMemGuest
	c.d.resources[res.id] = res
	if a.Mem == virtiogpu.BlobMemHost3D {
		host, err := c.d.hostMemory(res)
		if err == nil {
			mem, err = host.Dup()
		}
		if err != nil {
			c.Unref(res.id)
			return 0, nil, err
		}
	}
	c.attach(res)
	return res.id, mem, nil
}

// Unref implements vtest.Context.
func (c *vtestContext) Unref(id uint32) {
	res := c.resources[id]
	if res == nil {
		return
	}
	c.drop(res)
	delete(c.resources, id)
	fd, mem := c.pages[id], res.shm
	if fd != nil {
		res.shm = nil
	}
	c.d.destroyResource(res, errVtestGone)
	if fd != nil { // the renderer has let go of it
		delete(c.pages, id)
		c.spare = append(c.spare, shmPage{fd, mem})
	}
}

var errVtestGone = errors.New("its client gave it up")

// ToHost implements vtest.Context.
func (c *vtestContext) ToHost(t *virgl.Transfer, data []byte) error {
	t.Ctx = c.ctx.id
	c.d.touched(c.ctx.id)
	if data == nil {
		return c.d.rend.TransferToHost(t)
	}
	return c.bytes((virgl.ByteTransferrer).WriteBytes, t, data)
}

// FromHost implements vtest.Context.
func (c *vtestContext) FromHost(t *virgl.Transfer, data []byte) error {
	t.Ctx = c.ctx.id
	if data == nil {
		return c.d.rend.TransferFromHost(t)
	}
	return c.bytes((virgl.ByteTransferrer).ReadBytes, t, data)
}

func (c *vtestContext) bytes(move func(virgl.ByteTransferrer, *virgl.Transfer, []byte) error, t *virgl.Transfer, data []byte) error {
	b, ok := c.d.rend.(virgl.ByteTransferrer)
	if !ok {
		return fmt.Errorf("transfers of bytes: %w", virgl.ErrNotSupported)
	}
	return move(b, t, data)
}

// Submit implements vtest.Context. The fence is made at once, so that the GPU begins.
func (c *vtestContext) Submit(stream []byte) error {
	d := c.d
	d.stats.Submits.Add(1)
	c.ctx.submitted++
	d.touched(c.ctx.id)
	if err := d.rend.Submit(c.ctx.id, stream); err != nil {
		return err
	}
	_, err := d.newFence(c.ctx.id)
	return err
}

// Fence implements vtest.Context.
func (c *vtestContext) Fence() (id uint32, done bool, err error) {
	if c.ctx.dirty {
		if _, err := c.d.newFence(c.ctx.id); err != nil {
			return 0, false, err
		}
	}
	if !c.ctx.idle {
		c.d.rend.Poll()
	}
	return c.ctx.fence, c.ctx.idle, nil
}

// Close implements vtest.Context.
func (c *vtestContext) Close() {
	c.ctx.onFence = nil
	c.d.destroyContext(c.ctx)
	for id := range c.resources {
		c.Unref(id)
	}
	for _, p := range c.spare {
		_ = dmabuf.Unmap(p.mem)
		_ = p.fd.Close()
	}
	c.spare = nil
}

package virgltest

import (
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl"
)

// Config says how a Fake behaves. The zero value is a renderer with 3D, without
// exports, whose fences signal by themselves.
type Config struct {
	// OnFence is called as virgl.Config.OnFence is: from inside Poll.
	OnFence virgl.Fences
	// Kind is what Export gives: dmabuf.KindShm, or dmabuf.KindDMABuf, whose
	// descriptors are memfds too, which is enough for code that only passes them
	// on. 0: Export returns virgl.ErrNotSupported.
	Kind dmabuf.Kind
	// ManualFences leaves fences pending until Signal.
	ManualFences bool
	// OnSubmit sees every command stream, before Submit returns its error. It may
	// call Paint. The stream is valid during the call.
	OnSubmit func(f *Fake, ctx uint32, cmds []byte) error
	// Capsets replaces the two virgl sets.
	Capsets []virgl.CapsetInfo
	// NoGL makes Info.GL false.
	NoGL bool
}

// Op names a method for Fail and Calls.
type Op string

// The methods that can fail.
const (
	OpFillCapset       Op = "FillCapset"
	OpCreateContext    Op = "CreateContext"
	OpDestroyContext   Op = "DestroyContext"
	OpAttachResource   Op = "AttachResource"
	OpDetachResource   Op = "DetachResource"
	OpCreateResource   Op = "CreateResource"
	OpUnrefResource    Op = "UnrefResource"
	OpAttachBacking    Op = "AttachBacking"
	OpDetachBacking    Op = "DetachBacking"
	OpTransferToHost   Op = "TransferToHost"
	OpTransferFromHost Op = "TransferFromHost"
	OpSubmit           Op = "Submit"
	OpReadPixels       Op = "ReadPixels"
	OpExport           Op = "Export"
	OpCreateFence      Op = "CreateFence"
	OpPoll             Op = "Poll"
	OpReset            Op = "Reset"
	OpCreateBlob       Op = "CreateBlob"
	OpExportBlob       Op = "ExportBlob"
)

// Fence is one CreateFence.
type Fence struct{ Ctx, ID uint32 }

// Fake is a virgl.Renderer. The renderer's methods belong to one goroutine at a
// time, as those of a real one; the methods that only a Fake has may be called
// from any.
type Fake struct {
	cfg   Config
	event *dmabuf.FD // eventfd

	mu        sync.Mutex
	contexts  map[uint32]*context  // guarded by mu
	resources map[uint32]*resource // guarded by mu
	pending   []Fence              // guarded by mu; not signalled
	signalled []Fence              // guarded by mu; not yet reported by Poll
	reporting []Fence              // guarded by mu; Poll's own while it runs
	failing   map[Op]failure       // guarded by mu
	calls     map[Op]int           // guarded by mu
	misuse    []string             // guarded by mu
	closed    bool                 // guarded by mu
}

type context struct {
	init      uint32
	name      string
	resources map[uint32]bool
}

type failure struct {
	err  error
	left int // calls that still fail; negative: all
}

var (
	_ virgl.BlobRenderer    = (*Fake)(nil)
	_ virgl.ByteTransferrer = (*Fake)(nil)
)

// New makes a Fake. Close it: it owns descriptors.
func New(cfg Config) (*Fake, error) {
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("virgltest: eventfd: %w", err)
	}
	if cfg.OnFence == nil {
		cfg.OnFence = func(uint32, uint32) {}
	}
	if cfg.Capsets == nil {
		cfg.Capsets = []virgl.CapsetInfo{
			{ID: virgl.CapsetVirgl, MaxVersion: 1, MaxSize: 308},
			{ID: virgl.CapsetVirgl2, MaxVersion: 2, MaxSize: 1376},
		}
	}
	return &Fake{
		cfg:       cfg,
		event:     dmabuf.NewFD(raw, "fake renderer poll"),
		contexts:  map[uint32]*context{},
		resources: map[uint32]*resource{},
		failing:   map[Op]failure{},
		calls:     map[Op]int{},
	}, nil
}

// Fail makes every following call of op return err, until Fail(op, nil). Methods
// without a result ignore it.
func (f *Fake) Fail(op Op, err error) { f.fail(op, failure{err, -1}) }

// FailOnce makes the next call of op return err.
func (f *Fake) FailOnce(op Op, err error) { f.fail(op, failure{err, 1}) }

func (f *Fake) fail(op Op, x failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x.err == nil {
		delete(f.failing, op)
		return
	}
	f.failing[op] = x
}

// enter counts a call and returns the error that it shall fail with. Called with mu.
func (f *Fake) enter(op Op) error {
	f.calls[op]++
	if f.closed {
		f.report("%s after Close", op)
	}
	x, ok := f.failing[op]
	if !ok {
		return nil
	}
	if x.left > 0 {
		x.left--
		f.failing[op] = x
		if x.left == 0 {
			delete(f.failing, op)
		}
	}
	return &virgl.OpError{Op: string(op), Err: x.err}
}

// report notes misuse. Called with mu.
func (f *Fake) report(format string, args ...any) {
	f.misuse = append(f.misuse, fmt.Sprintf(format, args...))
}

// bad notes misuse and returns it as an error. Called with mu.
func (f *Fake) bad(op Op, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	f.report("%s: %s", op, text)
	return &virgl.OpError{Op: string(op), Err: fmt.Errorf("%w: %s", virgl.ErrInvalid, text)}
}

// Misuse lists what callers did that a real renderer would not have survived, or
// would have ignored: unknown ids, ids used twice, rectangles outside, backing
// missing or given twice, calls after Close.
func (f *Fake) Misuse() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.misuse)
}

// Calls returns how often op was called.
func (f *Fake) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// Info implements virgl.Renderer.
func (f *Fake) Info() virgl.Info {
	return virgl.Info{
		Library: "virgltest", Node: "fake", GL: !f.cfg.NoGL,
		DMABufExport: f.cfg.Kind == dmabuf.KindDMABuf, Capsets: slices.Clone(f.cfg.Capsets),
	}
}

// FillCapset implements virgl.Renderer: every byte is id<<4 | version.
func (f *Fake) FillCapset(id, version uint32, dst []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(OpFillCapset); err != nil {
		return err
	}
	for _, c := range f.cfg.Capsets {
		if c.ID != id {
			continue
		}
		if version > c.MaxVersion || len(dst) != int(c.MaxSize) {
			return f.bad(OpFillCapset, "capset %d version %d into %d bytes, limits %d and %d", id, version, len(dst), c.MaxVersion, c.MaxSize)
		}
		for i := range dst {
			dst[i] = byte(id<<4 | version)
		}
		return nil
	}
	return f.bad(OpFillCapset, "capset %d does not exist", id)
}

// CreateContext implements virgl.Renderer.
func (f *Fake) CreateContext(ctx, init uint32, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(OpCreateContext); err != nil {
		return err
	}
	if f.cfg.NoGL {
		return &virgl.OpError{Op: string(OpCreateContext), Err: virgl.ErrNotSupported}
	}
	if ctx == 0 || f.contexts[ctx] != nil {
		return f.bad(OpCreateContext, "context %d exists", ctx)
	}
	f.contexts[ctx] = &context{init: init, name: name, resources: map[uint32]bool{}}
	return nil
}

// DestroyContext implements virgl.Renderer.
func (f *Fake) DestroyContext(ctx uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.enter(OpDestroyContext)
	if f.contexts[ctx] == nil {
		f.report("DestroyContext: context %d does not exist", ctx)
	}
	delete(f.contexts, ctx)
}

// AttachResource implements virgl.Renderer.
func (f *Fake) AttachResource(ctx, res uint32) { f.attach(OpAttachResource, ctx, res, true) }

// DetachResource implements virgl.Renderer.
func (f *Fake) DetachResource(ctx, res uint32) { f.attach(OpDetachResource, ctx, res, false) }

func (f *Fake) attach(op Op, ctx, res uint32, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.enter(op)
	c := f.contexts[ctx]
	if c == nil || f.resources[res] == nil {
		f.report("%s: context %d or resource %d does not exist", op, ctx, res)
		return
	}
	if on {
		c.resources[res] = true
		return
	}
	if !c.resources[res] {
		f.report("DetachResource: resource %d is not attached to context %d", res, ctx)
	}
	delete(c.resources, res)
}

// Attached reports whether a resource is attached to a context.
func (f *Fake) Attached(ctx, res uint32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.contexts[ctx]
	return c != nil && c.resources[res]
}

// Context returns the context_init word and name of a context.
func (f *Fake) Context(ctx uint32) (init uint32, name string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.contexts[ctx]
	if c == nil {
		return 0, "", false
	}
	return c.init, c.name, true
}

// Submit implements virgl.Renderer. It runs Config.OnSubmit, outside any lock.
func (f *Fake) Submit(ctx uint32, cmds []byte) error {
	if err := f.checkSubmit(ctx, cmds); err != nil || f.cfg.OnSubmit == nil {
		return err
	}
	return f.cfg.OnSubmit(f, ctx, cmds)
}

func (f *Fake) checkSubmit(ctx uint32, cmds []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(OpSubmit); err != nil {
		return err
	}
	if f.contexts[ctx] == nil {
		return f.bad(OpSubmit, "context %d does not exist", ctx)
	}
	if len(cmds)%4 != 0 || !aligned(cmds) {
		return f.bad(OpSubmit, "%d bytes, want an aligned multiple of 4", len(cmds))
	}
	return nil
}

// Stats implements virgl.Renderer.
func (f *Fake) Stats() virgl.Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return virgl.Stats{Contexts: len(f.contexts), Resources: len(f.resources), FencesPending: len(f.pending) + len(f.signalled)}
}

// Reset implements virgl.Renderer.
func (f *Fake) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.enter(OpReset)
	f.clear()
}

// clear drops everything. Called with mu.
func (f *Fake) clear() {
	clear(f.contexts)
	for id, r := range f.resources {
		r.free()
		delete(f.resources, id)
	}
	f.pending, f.signalled = nil, nil
}

// Close implements virgl.Renderer. Exported buffers stay valid.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.clear()
	f.closed = true
	return f.event.Close()
}

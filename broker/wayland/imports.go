package wayland

import (
	"fmt"
	"math"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// importKey names a wl_buffer. Heads do not share one: when a wl_buffer is on two
// surfaces, its release events mean nothing (wl_surface.attach).
type importKey struct {
	id     uint64
	head   int
	opaque bool
	crop   display.Rect // the part of an shm buffer that it covers, empty for all
}

type importState uint8

const (
	importPending importState = iota // the compositor was asked
	importLive
	importFailed // never usable; err says why
)

// maxPending bounds the imports of a head that a slow compositor has not
// answered yet.
const maxPending = 4

// imported is a buffer that the compositor knows.
type imported struct {
	se     *session
	key    importKey
	buf    *dmabuf.Buffer // holds a reference; nil once failed
	layout layout         // as it was offered to the compositor
	params proto.ZwpLinuxBufferParamsV1
	wl     proto.WlBuffer
	state  importState
	err    error

	release  *timeline // the compositor's release points, nil if there were none yet
	explicit bool      // the last commit had one, so that wl_buffer.release means nothing

	current bool // it is the content of its head's window
	busy    bool // committed and not released since
	reading bool // holds a BeginRead
	dropped bool // the broker will not present it again
}

// importOf returns the import for a frame, made if need be; nil if it has to
// wait because too many are unanswered.
func (se *session) importOf(h *head, f *frame) *imported {
	key := importKey{id: f.buf.ID, head: h.n, opaque: f.opaque}
	if se.viewporter == 0 && f.src != whole(f.buf) && f.buf.Kind == dmabuf.KindShm {
		key.crop = f.src
	}
	if imp := se.imports[key]; imp != nil {
		return imp
	}
	if f.buf.Kind == dmabuf.KindDMABuf && se.pending(h.n) >= maxPending {
		return nil
	}
	imp := &imported{se: se, key: key, buf: f.buf, dropped: f.dropped}
	se.imports[key] = imp
	se.sweeping = se.sweeping || imp.dropped
	err := se.checkFrame(f)
	if err == nil && f.buf.Kind == dmabuf.KindDMABuf {
		err = imp.importDMABuf()
	} else if err == nil {
		err = imp.importShm()
	}
	if err != nil {
		imp.fail(&OpError{Op: "import", Object: f.buf.String(), Err: err})
		return imp
	}
	f.buf.Retain()
	return imp
}

func (se *session) pending(head int) int {
	n := 0
	for key, imp := range se.imports {
		if key.head == head && imp.state == importPending {
			n++
		}
	}
	return n
}

func (se *session) checkFrame(f *frame) error {
	all := whole(f.buf)
	if f.src.Intersect(all) != f.src {
		return fmt.Errorf("%w: source %v lies outside the buffer of %dx%d", ErrFrame, f.src, all.W, all.H)
	}
	if f.src != all && se.viewporter == 0 && f.buf.Kind == dmabuf.KindDMABuf {
		return fmt.Errorf("%w: the compositor has no wp_viewporter to show the part %v of a dma-buf", ErrFrame, f.src)
	}
	return nil
}

// importDMABuf asks for a wl_buffer with create, not create_immed: a refusal then
// is an event instead of the end of the connection.
func (imp *imported) importDMABuf() error {
	se, b := imp.se, imp.buf
	fourcc, ok := se.s.formats.Load().choose(b.Fourcc, b.Modifier, imp.key.opaque)
	if se.dmabuf == 0 || !ok {
		return fmt.Errorf("%w: the compositor does not take %v with modifier %v", ErrFrame, b.Fourcc, b.Modifier)
	}
	fds := make([]*dmabuf.FD, 0, dmabuf.MaxPlanes)
	for _, p := range b.Planes {
		fd, err := p.FD.Dup()
		if err != nil {
			for _, fd := range fds {
				_ = fd.Close()
			}
			return err
		}
		fds = append(fds, fd)
	}
	imp.layout = layout{fourcc, b.Modifier}
	imp.params = proto.ZwpLinuxBufferParamsV1(se.objs.add(proto.IZwpLinuxBufferParamsV1, imp))
	out := se.out()
	se.dmabuf.CreateParams(out, imp.params)
	for i, p := range b.Planes {
		imp.params.Add(out, fds[i], uint32(i), p.Offset, p.Stride, uint32(b.Modifier>>32), uint32(b.Modifier))
	}
	imp.params.Create(out, int32(b.Width), int32(b.Height), uint32(fourcc), 0)
	return nil
}

// importShm makes a wl_buffer of the buffer's memfd. Everything that wl_shm
// would end the connection for is checked here first.
func (imp *imported) importShm() error {
	se, b, p := imp.se, imp.buf, imp.buf.Planes[0]
	format, ok := se.chooseShm(b.Fourcc, imp.key.opaque)
	if !ok {
		return fmt.Errorf("%w: the compositor does not take %v as shared memory", ErrFrame, b.Fourcc)
	}
	crop := imp.key.crop
	if crop.Empty() {
		crop = whole(b)
	}
	size := uint64(p.Offset) + b.Size(0)
	if size > math.MaxInt32 {
		return fmt.Errorf("%w: shared memory of %d bytes, limit %d", ErrFrame, size, math.MaxInt32)
	}
	if need := uint64(b.Width) * uint64(b.Fourcc.BytesPerPixel()); need == 0 || uint64(p.Stride) < need {
		return fmt.Errorf("%w: stride %d, a row of %v needs %d", ErrFrame, p.Stride, b.Fourcc, need)
	}
	var st unix.Stat_t
	if err := unix.Fstat(p.FD.Int(), &st); err != nil {
		return fmt.Errorf("stat %s: %w", p.FD.Name(), err)
	}
	if uint64(st.Size) < size {
		return fmt.Errorf("%w: shared memory file has %d bytes, the picture ends at %d", ErrFrame, st.Size, size)
	}
	fd, err := p.FD.Dup()
	if err != nil {
		return err
	}
	out := se.out()
	pool := proto.WlShmPool(se.objs.add(proto.IWlShmPool, ignore{}))
	se.shm.CreatePool(out, pool, fd, int32(size))
	imp.wl = proto.WlBuffer(se.objs.add(proto.IWlBuffer, imp))
	pool.CreateBuffer(out, imp.wl, int32(cropOffset(b, crop)), int32(crop.W), int32(crop.H), int32(p.Stride), format)
	pool.Destroy(out)
	se.objs.destroyed(wire.ID(pool))
	imp.live()
	return nil
}

func (imp *imported) live() {
	imp.state = importLive
	imp.se.s.stats.Imports.Add(1)
	imp.se.s.stats.ImportsLive.Add(1)
}

func (imp *imported) fail(err error) {
	imp.state, imp.err, imp.buf = importFailed, err, nil
	imp.se.s.log.Warn("cannot show a frame", zap.Int("head", imp.key.head), zap.Error(err))
}

func (imp *imported) event(_ wire.ID, iface proto.InterfaceID, m wire.Message) error {
	if iface == proto.IWlBuffer { // release is its only event
		// After a buffer was attached twice this may be the release of the first
		// time: the protocol cannot tell. The read of a shown buffer goes on anyway.
		if !imp.explicit {
			imp.busy = false
			imp.settle()
		}
		return nil
	}
	se := imp.se
	if m.Opcode == proto.EvZwpLinuxBufferParamsV1Created {
		var ev proto.ZwpLinuxBufferParamsV1CreatedEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		if err := se.objs.addServer(wire.ID(ev.Buffer), proto.IWlBuffer, imp); err != nil {
			return err
		}
		imp.wl = ev.Buffer
		imp.endParams()
		imp.live()
		return nil
	}
	imp.endParams()
	b := imp.buf
	se.refused[imp.layout] = struct{}{}
	imp.fail(&OpError{Op: "import", Object: b.String(),
		Err: fmt.Errorf("%w: the compositor failed to import %v with modifier %v; it is not offered again", ErrFrame, imp.layout.fourcc, imp.layout.modifier)})
	b.Release()
	se.publishFormats()
	se.refresh()
	return nil
}

func (imp *imported) endParams() {
	imp.params.Destroy(imp.se.out())
	imp.se.objs.destroyed(wire.ID(imp.params))
	imp.params = 0
}

// commit notes that a surface shows the buffer from now on and takes over the
// frame's read, unless the import has one.
func (imp *imported) commit() {
	imp.current, imp.busy = true, true
	if imp.reading {
		imp.buf.EndRead()
	}
	imp.reading = true
}

// settle ends the read when nobody looks any more.
func (imp *imported) settle() {
	if imp.reading && !imp.current && !imp.busy {
		imp.reading = false
		imp.buf.EndRead()
	}
}

// destroy removes the wl_buffer. Preconditions: live, not current, not busy.
func (imp *imported) destroy() {
	imp.wl.Destroy(imp.se.out())
	imp.se.objs.destroyed(wire.ID(imp.wl))
	imp.release.destroy(imp.se)
	imp.release = nil
	imp.abandon()
	delete(imp.se.imports, imp.key)
}

// abandon lets go of the buffer without a word to the compositor.
func (imp *imported) abandon() {
	if imp.state == importFailed {
		return
	}
	imp.release.abandon()
	if imp.state == importLive {
		imp.se.s.stats.ImportsLive.Add(-1)
	}
	if imp.reading {
		imp.reading = false
		imp.buf.EndRead()
	}
	imp.buf.Release()
}

// drop marks the imports of a buffer that will not be presented again.
func (se *session) drop(id uint64) {
	for key, imp := range se.imports {
		if key.id == id {
			imp.dropped = true
			se.sweeping = true
		}
	}
}

// sweep destroys dropped imports that nobody needs any more.
func (se *session) sweep() {
	if !se.sweeping || se.conn.Out.Pending() > lowWater {
		return
	}
	se.sweeping = false
	for key, imp := range se.imports {
		switch next := se.l.heads[key.head].next.buf; {
		case !imp.dropped:
		case imp.state == importFailed:
			delete(se.imports, key)
		case imp.state == importPending, imp.current, imp.busy, next == imp.buf:
			se.sweeping = true
		default:
			imp.destroy()
		}
	}
}

// forgetFailures gives refused buffers another chance after the formats changed.
func (se *session) forgetFailures() {
	for key, imp := range se.imports {
		if imp.state == importFailed {
			delete(se.imports, key)
		}
	}
}

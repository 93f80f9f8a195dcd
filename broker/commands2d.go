package broker

import (
	"fmt"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/edid"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
	"github.com/gpubroker/gpubroker/virgl"
)

func (d *Device) getDisplayInfo(r *request) error {
	return d.answerFresh(r, func(h *virtiogpu.CtrlHdr) []byte {
		info := virtiogpu.DisplayInfo{CtrlHdr: h.Reply(virtiogpu.RespOKDisplayInfo)}
		for i := range d.cfg.Heads {
			m := d.sink.Mode(i)
			info.Modes[i].R = virtiogpu.Rect{Width: m.W, Height: m.H}
			if m.Enabled {
				info.Modes[i].Enabled = 1
			}
		}
		return info.Append(nil)
	})
}

func (d *Device) getEDID(r *request) error {
	var c virtiogpu.GetEDID
	if err := c.Decode(r.body); err != nil {
		return err
	}
	if c.Scanout >= uint32(d.cfg.Heads) {
		return fmt.Errorf("%w: scanout %d, limit %d", virtiogpu.ErrInvalidParameter, c.Scanout, d.cfg.Heads-1)
	}
	return d.answerFresh(r, func(h *virtiogpu.CtrlHdr) []byte {
		resp := virtiogpu.EDID{CtrlHdr: h.Reply(virtiogpu.RespOKEDID)}
		resp.Size = uint32(copy(resp.Data[:], d.edid(c.Scanout)))
		return resp.Append(nil)
	})
}

// edid is the display's own for the head, or one that we make.
func (d *Device) edid(head uint32) []byte {
	if data := d.sink.EDID(int(head)); data != nil {
		return data
	}
	m := d.sink.Mode(int(head))
	return edid.Build(edid.Params{Width: m.W, Height: m.H, MilliHz: m.MilliHz, WidthMM: m.WidthMM, HeightMM: m.HeightMM,
		Name: "gpubroker", Serial: head + 1})
}

// answerFresh answers with what a display says now: at once, or when a display
// that tells its modes only when asked has been asked.
func (d *Device) answerFresh(r *request, answer func(*virtiogpu.CtrlHdr) []byte) error {
	f, ok := d.sink.(display.Fresher)
	if !ok {
		d.out = append(d.out, answer(&r.hdr)...)
		return nil
	}
	cmd := d.suspend(r)
	cmd.atStop = answer
	f.Freshen(func() {
		d.cfg.Loop.Post(func() { d.resume(cmd, nil, answer(&cmd.hdr)) })
	})
	return errSuspended
}

func (d *Device) resourceCreate2D(r *request) error {
	var c virtiogpu.ResourceCreate2D
	if err := c.Decode(r.body); err != nil {
		return err
	}
	if err := d.checkNew(c.ResourceID); err != nil {
		return err
	}
	fourcc, ok := c.Format.Fourcc()
	if !ok {
		return fmt.Errorf("%w: format %d", virtiogpu.ErrInvalidParameter, c.Format)
	}
	if err := checkSize(c.Width, c.Height); err != nil {
		return err
	}
	res := &resource{id: c.ResourceID, kind: kind2D, fourcc: fourcc}
	res.args = virgl.ResourceArgs{
		ID: c.ResourceID, Target: targetTexture2D, Format: uint32(c.Format), Bind: bindRenderTarget | bindSamplerView,
		Width: c.Width, Height: c.Height, Depth: 1, ArraySize: 1,
	}
	if err := d.admit(res); err != nil {
		return err
	}
	if err := d.allocate2D(res); err != nil {
		return err
	}
	d.resources[res.id] = res
	d.keepCreated(res, r.body)
	return nil
}

// pipe_texture_target and virgl bind bits (virgl_hw.h) for the renderer's twin of
// a 2D resource.
const (
	targetBuffer     = 0
	targetTexture2D  = 2
	bindRenderTarget = 1 << 1
	bindSamplerView  = 1 << 3
)

func checkSize(w, h uint32) error {
	if w == 0 || h == 0 || w > dmabuf.MaxDimension || h > dmabuf.MaxDimension {
		return fmt.Errorf("%w: size %dx%d, limit %dx%d", virtiogpu.ErrInvalidParameter, w, h, dmabuf.MaxDimension, dmabuf.MaxDimension)
	}
	return nil
}

// checkNew checks an id that the guest gives to a new resource.
func (d *Device) checkNew(id uint32) error {
	if id == 0 {
		return fmt.Errorf("%w: resource 0 cannot be created", virtiogpu.ErrInvalidResource)
	}
	if d.resources[id] != nil {
		return fmt.Errorf("%w: resource %d exists", virtiogpu.ErrInvalidResource, id)
	}
	return nil
}

func (d *Device) lookup(id uint32) (*resource, error) {
	if r := d.resources[id]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("%w: resource %d", virtiogpu.ErrInvalidResource, id)
}

func (d *Device) resourceUnref(r *request) error {
	var c virtiogpu.ResourceUnref
	if err := c.Decode(r.body); err != nil {
		return err
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	d.destroyResource(res, fmt.Errorf("%w: the guest gave it up", proxy.ErrUnknownResource))
	return nil
}

// destroyResource takes the resource out of the table and off every scanout.
// A buffer of it that the display still looks at lives on until it lets go; why is
// what those who have it open hear from now on.
func (d *Device) destroyResource(res *resource, why error) {
	for h := range d.scanouts {
		if res.heads&(1<<h) != 0 {
			d.disableHead(h)
		}
	}
	d.presents.forget(res)
	if res.handles > 0 {
		d.keep(res)
	}
	res.gone = why
	d.dropPictures(res)
	if res.blob != nil {
		d.unplaceBlob(res)
	}
	if res.inRenderer() {
		d.rend.UnrefResource(res.id)
	}
	if res.handles == 0 {
		res.freeMemory()
	} else {
		d.lingering[res] = struct{}{}
	}
	delete(d.resources, res.id)
	d.keepGone(res)
}

// keep makes what those who have a resource open may still ask for, while the
// renderer knows it.
func (d *Device) keep(res *resource) {
	if !res.inRenderer() {
		return
	}
	if buf, err := d.export(res); buf != nil && err == nil {
		res.kept = buf.Retain()
	}
	if res.blob != nil && res.blob.mem != virtiogpu.BlobMemGuest {
		_, _ = d.hostMemory(res) // keeps its error
	}
}

// freeMemory lets go of the memory of a resource that is in no table and nobody has
// open.
func (res *resource) freeMemory() {
	res.kept.Release()
	res.buf.Release()
	res.kept, res.buf = nil, nil
	if res.blob != nil {
		res.blob.free()
	}
	if res.backing != nil {
		res.backing.Close()
		res.backing = nil
	}
	_ = dmabuf.Unmap(res.shm)
	res.shm = nil
}

func (d *Device) resourceAttachBacking(r *request) error {
	var c virtiogpu.ResourceAttachBacking
	if err := c.Decode(r.body); err != nil {
		return err
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	if res.backing != nil || res.blob != nil {
		return fmt.Errorf("%w: resource %d has backing already", virtiogpu.ErrUnspec, res.id)
	}
	entries, err := c.Entries(r.body)
	if err != nil {
		return err
	}
	if entries.Len() == 0 {
		return fmt.Errorf("%w: nr_entries 0", virtiogpu.ErrInvalidParameter)
	}
	backing, err := d.backing(entries)
	if err != nil {
		return err
	}
	if res.kind == kind3D {
		if err := d.rend.AttachBacking(res.id, backing.Segs); err != nil {
			backing.Close()
			return fmt.Errorf("%w: %w", virtiogpu.ErrUnspec, err)
		}
	}
	res.backing = backing
	d.keepAttached(res, r.body)
	return nil
}

// errBlobKeeps answers the guest that wants a blob's memory back before it lets go of
// the blob, as Linux does whenever it frees one that it imported.
var errBlobKeeps = fmt.Errorf("%w: a blob keeps its memory until its unref", virtiogpu.ErrUnspec)

func (d *Device) resourceDetachBacking(r *request) error {
	var c virtiogpu.ResourceDetachBacking
	if err := c.Decode(r.body); err != nil {
		return err
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	if res.blob != nil {
		return fmt.Errorf("resource %d: %w", res.id, errBlobKeeps)
	}
	if res.backing == nil {
		return fmt.Errorf("%w: resource %d has no backing to detach", virtiogpu.ErrUnspec, res.id)
	}
	if res.kind == kind3D {
		d.rend.DetachBacking(res.id)
	}
	res.backing.Close()
	res.backing = nil
	d.keepAttached(res, nil)
	return nil
}

func (d *Device) transferToHost2D(r *request) error {
	var c virtiogpu.TransferToHost2D
	if err := c.Decode(r.body); err != nil {
		return err
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	if res.blob != nil {
		// The guest's pixels are here already. Linux sends it all the same for dumb
		// buffers, which it makes as guest blobs where it has no 3D.
		return nil
	}
	if !c.R.Inside(res.args.Width, res.args.Height) {
		return fmt.Errorf("%w: rectangle %dx%d at %d,%d outside of resource %d (%dx%d)", virtiogpu.ErrInvalidParameter,
			c.R.Width, c.R.Height, c.R.X, c.R.Y, res.id, res.args.Width, res.args.Height)
	}
	if res.backing == nil {
		return fmt.Errorf("%w: resource %d has no backing", virtiogpu.ErrUnspec, res.id)
	}
	if res.kind == kind3D {
		t := virgl.Transfer{Resource: res.id, Offset: c.Offset, Box: virgl.Box{X: c.R.X, Y: c.R.Y, W: c.R.Width, H: c.R.Height, D: 1}}
		if err := d.rend.TransferToHost(&t); err != nil {
			return fmt.Errorf("%w: %w", virtiogpu.ErrInvalidParameter, err)
		}
		return nil
	}
	if c.R.Width == 0 || c.R.Height == 0 {
		return nil
	}
	if err := d.upload2D(res, display.Rect{X: c.R.X, Y: c.R.Y, W: c.R.Width, H: c.R.Height}, c.Offset); err != nil {
		return fmt.Errorf("%w: %w", virtiogpu.ErrInvalidParameter, err)
	}
	return nil
}

// upload2D copies a rectangle from the guest's pages straight into the buffer
// that the display reads: the one copy of the classic 2D path.
func (d *Device) upload2D(res *resource, rect display.Rect, offset uint64) error {
	buf := res.buf
	if buf.Kind == dmabuf.KindDMABuf {
		if err := buf.BeginCPU(true); err != nil {
			return err
		}
		defer func() { _ = buf.EndCPU(true) }()
	}
	conv, err := shmfallback.ConvertFor(res.fourcc, buf.Fourcc)
	if err != nil {
		return err
	}
	return d.meter.CopyRect(&shmfallback.Copy{
		Dst: buf.Mem, DstStride: buf.Planes[0].Stride, DstX: rect.X, DstY: rect.Y,
		Src: res.backing.Segs, SrcOffset: offset, SrcStride: res.args.Width * 4,
		W: rect.W, H: rect.H, BytesPerPixel: 4, Convert: conv,
	})
}

// allocate2D gives a 2D resource the buffer that holds its pixels: one that the
// GPU's allocator made where there is one, else shared memory. Its format is
// one of the two that every display takes; upload2D converts.
func (d *Device) allocate2D(res *resource) error {
	fourcc := dmabuf.XRGB8888
	if res.fourcc.HasAlpha() {
		fourcc = dmabuf.ARGB8888
	}
	if d.cfg.Alloc2D != nil {
		buf, err := d.cfg.Alloc2D.Alloc2D(res.args.Width, res.args.Height, fourcc)
		if err == nil && d.sink.Accepts(buf.Fourcc, buf.Modifier) {
			res.buf = buf
			return nil
		}
		if err == nil {
			err = fmt.Errorf("the display does not take %v with modifier %v", buf.Fourcc, buf.Modifier)
			buf.Release()
		}
		d.quiet.warn(d.log, "no GPU buffer for a 2D resource, using shared memory", zap.Uint32("resource", res.id), zap.Error(err))
	}
	buf, err := shmfallback.Alloc(res.args.Width, res.args.Height, fourcc, fmt.Sprintf("resource %d", res.id))
	if err != nil {
		return fmt.Errorf("%w: %w", virtiogpu.ErrOutOfMemory, err)
	}
	res.buf = buf
	return nil
}

func (d *Device) resourceAssignUUID(r *request) error {
	var c virtiogpu.ResourceAssignUUID
	if err := c.Decode(r.body); err != nil {
		return err
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	resp := virtiogpu.ResourceUUID{CtrlHdr: r.hdr.Reply(virtiogpu.RespOKResourceUUID), UUID: res.assignUUID()}
	d.keepResource(res)
	d.out = resp.Append(d.out)
	return nil
}

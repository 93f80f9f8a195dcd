package broker

import (
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
	"github.com/gpubroker/gpubroker/virgl"
)

// maxBlob limits one blob, in bytes: the picture of the largest size that any
// scanout can have, four bytes a pixel.
const maxBlob = uint64(dmabuf.MaxDimension) * dmabuf.MaxDimension * 4

// blob is what RESOURCE_CREATE_BLOB made. Render thread only.
type blob struct {
	mem   uint32 // virtiogpu.BlobMemGuest, …
	flags uint32
	size  uint64 // bytes

	// host is the host memory behind it, nil for guest blobs: a memfd of ours, or
	// what the renderer exported, tried once.
	host     *dmabuf.FD
	memfd    bool // host is a memfd of ours
	readOnly bool // it must not be mapped for writing
	mapInfo  uint32
	cpu      [1][]byte // host, mapped for the copy tier when that is needed
	exported bool
	hostErr  error

	// texture is the renderer's export of what it draws, made once.
	texture    *dmabuf.Buffer
	textured   bool
	textureErr error

	// pages is a dma-buf of all of its pages, made once.
	pages    *dmabuf.FD
	paged    bool
	pagesErr error

	place *placement // where the guest has it mapped
	twin  bool       // the renderer knows it
	drawn bool       // the renderer draws into it
}

// inRenderer reports whether the renderer knows the resource.
func (r *resource) inRenderer() bool { return r.kind == kind3D || r.blob != nil && r.blob.twin }

// needBlobs is the error for blob commands that were not negotiated.
func (d *Device) needBlobs() error {
	if d.features&(1<<virtiogpu.FeatureResourceBlob) == 0 {
		return fmt.Errorf("%w: VIRTIO_GPU_F_RESOURCE_BLOB was not negotiated", virtiogpu.ErrUnspec)
	}
	return nil
}

func (d *Device) resourceCreateBlob(r *request) error {
	if err := d.needBlobs(); err != nil {
		return err
	}
	var c virtiogpu.ResourceCreateBlob
	if err := c.Decode(r.body); err != nil {
		return err
	}
	if err := d.checkNew(c.ResourceID); err != nil {
		return err
	}
	if c.Size == 0 || c.Size > maxBlob {
		return fmt.Errorf("%w: size %d, limit %d", virtiogpu.ErrInvalidParameter, c.Size, maxBlob)
	}
	const known = virtiogpu.BlobFlagMappable | virtiogpu.BlobFlagShareable | virtiogpu.BlobFlagCrossDevice
	if c.BlobFlags&^known != 0 {
		return fmt.Errorf("%w: blob_flags %#x, known are %#x", virtiogpu.ErrInvalidParameter, c.BlobFlags, known)
	}
	res := &resource{id: c.ResourceID, kind: kindBlob, blob: &blob{mem: c.BlobMem, flags: c.BlobFlags, size: c.Size}}
	res.args.ID = c.ResourceID
	if err := d.admit(res); err != nil {
		return err
	}
	var err error
	switch c.BlobMem {
	case virtiogpu.BlobMemGuest:
		err = d.guestBlob(res, &c, r.body)
	case virtiogpu.BlobMemHost3D:
		err = d.hostBlob(res, &c, r)
	case virtiogpu.BlobMemHost3DGuest:
		err = d.sharedBlob(res, &c, r)
	default:
		err = fmt.Errorf("%w: blob_mem %d", virtiogpu.ErrInvalidParameter, c.BlobMem)
	}
	if err != nil {
		return err
	}
	d.resources[res.id] = res
	d.keepCreated(res, r.body)
	return nil
}

// blobBacking looks up the pages of a blob.
func (d *Device) blobBacking(c *virtiogpu.ResourceCreateBlob, body []byte) (*guestmem.Backing, error) {
	entries, err := c.Entries(body)
	if err != nil {
		return nil, err
	}
	if entries.Bytes() < c.Size {
		return nil, fmt.Errorf("%w: entries of %d bytes for a blob of %d", virtiogpu.ErrInvalidParameter, entries.Bytes(), c.Size)
	}
	return d.backing(entries)
}

// backing looks the entries up in guest memory.
func (d *Device) backing(entries virtiogpu.MemEntries) (*guestmem.Backing, error) {
	if err := d.admitPieces(entries.Len()); err != nil {
		return nil, err
	}
	list := make([]guestmem.Entry, entries.Len())
	for i := range list {
		e := entries.At(i)
		list[i] = guestmem.Entry{Addr: e.Addr, Len: e.Length}
	}
	b, err := d.mem.NewBacking(list)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", virtiogpu.ErrInvalidParameter, err)
	}
	return b, nil
}

// guestBlob is memory that the guest owns.
func (d *Device) guestBlob(res *resource, c *virtiogpu.ResourceCreateBlob, body []byte) error {
	if c.BlobID != 0 {
		return fmt.Errorf("%w: blob_id %d of a guest blob, want 0", virtiogpu.ErrInvalidParameter, c.BlobID)
	}
	var err error
	res.backing, err = d.blobBacking(c, body)
	return err
}

// hostBlob is host memory that the guest can map: what a context made and calls
// blob_id, or with blob_id 0 plain shared memory from the broker.
func (d *Device) hostBlob(res *resource, c *virtiogpu.ResourceCreateBlob, r *request) error {
	if c.NrEntries != 0 {
		return fmt.Errorf("%w: nr_entries %d of a host blob, want 0", virtiogpu.ErrInvalidParameter, c.NrEntries)
	}
	if c.BlobID != 0 {
		if ctx := d.contexts[r.hdr.CtxID]; ctx != nil && ctx.cross != nil {
			return d.crossBlob(res, c, ctx)
		}
		return d.rendererBlob(res, c, r)
	}
	if c.Size > d.cfg.HostMem {
		return fmt.Errorf("%w: size %d of a host blob, the window has %d", virtiogpu.ErrOutOfMemory, c.Size, d.cfg.HostMem)
	}
	fd, err := dmabuf.NewMemfd(fmt.Sprintf("blob %d", res.id), dmabuf.PageAlign(int64(c.Size)))
	if err != nil {
		return fmt.Errorf("%w: %w", virtiogpu.ErrOutOfMemory, err)
	}
	b := res.blob
	b.host, b.memfd, b.exported, b.mapInfo = fd, true, true, virtiogpu.MapCacheCached
	return nil
}

// sharedBlob is guest memory that a context of the renderer uses too.
func (d *Device) sharedBlob(res *resource, c *virtiogpu.ResourceCreateBlob, r *request) error {
	var err error
	if res.backing, err = d.blobBacking(c, r.body); err != nil {
		return err
	}
	if err = d.rendererBlob(res, c, r); err != nil {
		res.backing.Close()
	}
	return err
}

func (d *Device) rendererBlob(res *resource, c *virtiogpu.ResourceCreateBlob, r *request) error {
	if err := d.need3D(); err != nil {
		return err
	}
	ctx, err := d.context(r)
	if err != nil {
		return err
	}
	br, ok := d.rend.(virgl.BlobRenderer)
	if !ok || ctx.cross != nil {
		return fmt.Errorf("%w: the renderer makes no blobs for this context", virtiogpu.ErrUnspec)
	}
	args := virgl.BlobArgs{ID: res.id, Ctx: ctx.id, Mem: c.BlobMem, Flags: c.BlobFlags, BlobID: c.BlobID, Size: c.Size}
	var segs [][]byte
	if res.backing != nil {
		segs = res.backing.Segs
	}
	if err := br.CreateBlob(&args, segs); err != nil {
		return fmt.Errorf("%w: blob_id %d: %w", virtiogpu.ErrInvalidParameter, c.BlobID, err)
	}
	res.blob.twin, res.blob.drawn = true, true
	return nil
}

// hostMemory finds the descriptor behind a host blob, once.
func (d *Device) hostMemory(res *resource) (*dmabuf.FD, error) {
	b := res.blob
	if !b.exported {
		b.exported = true
		br, ok := d.rend.(virgl.BlobRenderer)
		switch {
		case b.mem == virtiogpu.BlobMemGuest:
			b.hostErr = errors.New("a guest blob has no host memory")
		case !ok || !b.twin:
			b.hostErr = errors.New("the renderer makes no blobs")
		default:
			b.host, b.mapInfo, b.hostErr = br.ExportBlob(res.id)
		}
	}
	return b.host, b.hostErr
}

// unplaceBlob takes a blob out of the window. The guest is expected to unmap first;
// if it did not, that is done now.
func (d *Device) unplaceBlob(res *resource) {
	if b := res.blob; b.place != nil {
		d.unmapPlace(b.place, nil)
		b.place = nil
	}
}

// free lets go of a blob's memory.
func (b *blob) free() {
	_ = dmabuf.Unmap(b.cpu[0])
	b.cpu[0] = nil
	b.texture.Release()
	b.texture = nil
	_ = b.pages.Close()
	_ = b.host.Close()
}

func (d *Device) setScanoutBlob(r *request) error {
	if err := d.needBlobs(); err != nil {
		return err
	}
	var c virtiogpu.SetScanoutBlob
	if err := c.Decode(r.body); err != nil {
		return err
	}
	if c.ScanoutID >= uint32(d.cfg.Heads) {
		return fmt.Errorf("%w: scanout_id %d, limit %d", virtiogpu.ErrInvalidScanout, c.ScanoutID, d.cfg.Heads-1)
	}
	if c.ResourceID == 0 {
		d.disableHead(int(c.ScanoutID))
		return nil
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	if res.blob == nil {
		return fmt.Errorf("%w: resource %d is no blob", virtiogpu.ErrInvalidResource, res.id)
	}
	l := layout{w: c.Width, h: c.Height, strides: c.Strides, offsets: c.Offsets}
	var ok bool
	if l.fourcc, ok = c.Format.Fourcc(); !ok {
		return fmt.Errorf("%w: format %d", virtiogpu.ErrInvalidParameter, c.Format)
	}
	if err := checkSize(c.Width, c.Height); err != nil {
		return err
	}
	if c.R.Width == 0 || c.R.Height == 0 || !c.R.Inside(c.Width, c.Height) {
		return fmt.Errorf("%w: rectangle %dx%d at %d,%d empty or outside of %dx%d", virtiogpu.ErrInvalidParameter,
			c.R.Width, c.R.Height, c.R.X, c.R.Y, c.Width, c.Height)
	}
	if !res.blob.drawn { // the renderer knows the layout of what it draws
		if err := checkLayout(&l, res.blob.size); err != nil {
			return err
		}
	}
	d.setPicture(int(c.ScanoutID), d.picture(res, l), display.Rect{X: c.R.X, Y: c.R.Y, W: c.R.Width, H: c.R.Height})
	d.cfg.Page.SetHead(int(c.ScanoutID), r.body)
	return nil
}

// checkLayout checks that a picture lies inside its blob. The eight scanout
// formats have one plane of four bytes a pixel.
func checkLayout(l *layout, size uint64) error {
	stride, offset := uint64(l.strides[0]), uint64(l.offsets[0])
	row := uint64(l.w) * 4
	if stride < row || stride%4 != 0 || offset%4 != 0 {
		return fmt.Errorf("%w: stride %d and offset %d, a row has %d bytes and both must be multiples of 4", virtiogpu.ErrInvalidParameter, stride, offset, row)
	}
	if need := offset + stride*uint64(l.h-1) + row; need > size {
		return fmt.Errorf("%w: the picture ends at byte %d of a blob of %d", virtiogpu.ErrInvalidParameter, need, size)
	}
	for i := 1; i < dmabuf.MaxPlanes; i++ {
		if l.strides[i]|l.offsets[i] != 0 {
			return fmt.Errorf("%w: plane %d has stride %d and offset %d, %v has one plane", virtiogpu.ErrInvalidParameter, i, l.strides[i], l.offsets[i], l.fourcc)
		}
	}
	return nil
}

// blobBuffer makes what shows a blob without a copy: the renderer's export, a
// dma-buf of its pages, or its memfd. The error says why nothing better came out,
// also beside a buffer.
func (d *Device) blobBuffer(p *picture) (*dmabuf.Buffer, error) {
	b := p.res.blob
	if b.drawn {
		buf, err := d.blobTexture(p.res)
		if err != nil {
			return nil, err
		}
		if buf.Width != p.layout.w || buf.Height != p.layout.h {
			err = fmt.Errorf("%w: the renderer has %dx%d pixels, the guest says %dx%d", virtiogpu.ErrInvalidParameter,
				buf.Width, buf.Height, p.layout.w, p.layout.h)
			return nil, err
		}
		return buf.Retain(), nil
	}
	why := d.blobPages(p.res)
	if why == nil && !d.sink.Accepts(p.layout.fourcc, dmabuf.ModLinear) {
		why = fmt.Errorf("the display does not take %v with modifier %v", p.layout.fourcc, dmabuf.ModLinear)
	}
	if why == nil {
		return d.wrapBlob(p, b.pages, dmabuf.KindDMABuf, "udmabuf")
	}
	if f := p.layout.fourcc; b.memfd && (f == dmabuf.XRGB8888 || f == dmabuf.ARGB8888) {
		if buf, err := d.wrapBlob(p, b.host, dmabuf.KindShm, "memfd"); err == nil {
			return buf, why
		}
	}
	return nil, why
}

// blobTexture exports what the renderer draws into a blob, once.
func (d *Device) blobTexture(res *resource) (*dmabuf.Buffer, error) {
	b := res.blob
	if !b.textured {
		b.textured = true
		if b.texture, b.textureErr = d.rend.Export(res.id); b.textureErr == nil {
			d.stats.Exports.Add(1)
		}
	}
	return b.texture, b.textureErr
}

func (d *Device) wrapBlob(p *picture, fd *dmabuf.FD, kind dmabuf.Kind, origin string) (*dmabuf.Buffer, error) {
	dup, err := fd.Dup()
	if err != nil {
		return nil, err
	}
	return dmabuf.New(dmabuf.Desc{
		Kind: kind, Width: p.layout.w, Height: p.layout.h, Fourcc: p.layout.fourcc, Modifier: dmabuf.ModLinear,
		Planes: []dmabuf.Plane{{FD: dup, Offset: p.layout.offsets[0], Stride: p.layout.strides[0]}}, Origin: origin,
	})
}

// blobPages makes the dma-buf of a blob's pages, once.
func (d *Device) blobPages(res *resource) error {
	b := res.blob
	if b.paged {
		return b.pagesErr
	}
	b.paged = true
	if b.host != nil && !b.memfd { // a dma-buf already
		b.pages, b.pagesErr = b.host.Dup()
		return b.pagesErr
	}
	if d.cfg.UDMABuf == nil {
		b.pagesErr = errNoUDMABuf
		return b.pagesErr
	}
	var spans []dmabuf.Span
	page := uint64(os.Getpagesize())
	if res.backing == nil && !b.memfd {
		b.pagesErr = errors.New("its memory is the renderer's")
		return b.pagesErr
	}
	if b.memfd {
		spans = []dmabuf.Span{{FD: b.host, Size: uint64(dmabuf.PageAlign(int64(b.size)))}}
	} else {
		for _, f := range res.backing.Files() {
			if f.Offset%page != 0 || f.Len%page != 0 {
				b.pagesErr = fmt.Errorf("a piece of %d bytes at %d of guest memory is not whole pages", f.Len, f.Offset)
				return b.pagesErr
			}
			spans = append(spans, dmabuf.Span{FD: f.FD, Offset: f.Offset, Size: f.Len})
		}
	}
	if limit, bytes := dmabuf.UDMABufLimits(); len(spans) > limit || int64(b.size) > bytes {
		b.pagesErr = fmt.Errorf("%d bytes in %d pieces, the module udmabuf takes %d in %d (parameters size_limit_mb and list_limit)", b.size, len(spans), bytes, limit)
		return b.pagesErr
	}
	b.pages, b.pagesErr = d.cfg.UDMABuf.CreateList(spans)
	return b.pagesErr
}

// errNoUDMABuf is why guest pages go out by a copy on a host without udmabuf.
var errNoUDMABuf = errors.New("/dev/udmabuf cannot be used")

// copyBlob completes c, a copy from a rectangle of a blob's memory, and runs it.
func (d *Device) copyBlob(m *shmfallback.Meter, c *shmfallback.Copy, p *picture, rect display.Rect, to dmabuf.Fourcc) error {
	var err error
	if c.Src, err = p.res.segments(); err != nil {
		return err
	}
	if c.Convert, err = shmfallback.ConvertFor(p.layout.fourcc, to); err != nil {
		return err
	}
	c.SrcStride = p.layout.strides[0]
	c.SrcOffset = uint64(p.layout.offsets[0]) + uint64(rect.Y)*uint64(c.SrcStride) + uint64(rect.X)*4
	return m.CopyRect(c)
}

// segments returns a blob's memory for the copy tier; valid until freeMemory.
func (res *resource) segments() ([][]byte, error) {
	b := res.blob
	if res.backing != nil {
		return res.backing.Segs, nil
	}
	if b.cpu[0] == nil {
		if b.host == nil {
			return nil, fmt.Errorf("%w: the blob's memory is the renderer's", virtiogpu.ErrUnspec)
		}
		mem, err := dmabuf.Map(b.host, dmabuf.PageAlign(int64(b.size)), false)
		if err != nil {
			return nil, err
		}
		b.cpu[0] = mem
	}
	return b.cpu[:], nil
}

// promoteBlob tells the renderer of a guest blob that a context uses. Where the
// renderer does not want it, the blob is memory and a picture all the same.
func (d *Device) promoteBlob(res *resource) {
	b := res.blob
	if b.twin || b.mem != virtiogpu.BlobMemGuest {
		return
	}
	br, ok := d.rend.(virgl.BlobRenderer)
	if !ok {
		return
	}
	args := virgl.BlobArgs{ID: res.id, Mem: b.mem, Flags: b.flags, Size: b.size}
	if err := br.CreateBlob(&args, res.backing.Segs); err != nil {
		d.quiet.warn(d.log, "the renderer refuses a guest blob", zap.Uint32("resource", res.id), zap.Error(err))
		return
	}
	b.twin = true
}

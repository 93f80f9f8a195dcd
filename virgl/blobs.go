package virgl

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl/dl"
)

// Values of blob_mem and fd types (virglrenderer.h). The former are the guest's
// VIRTIO_GPU_BLOB_MEM_* too.
const (
	blobMemGuest = 1

	blobFDDMABuf = 1
	blobFDShm    = 3
)

// Where the blob calls put what they hand over in the call buffers.
const (
	blobArgs    = 0  // struct virgl_renderer_resource_create_blob_args, 48 bytes
	blobArgsLen = 48 // on 64-bit machines
	blobFDType  = 64
	blobFD      = 68
	blobMapInfo = 72
)

// blobLib is the part of libvirglrenderer that blobs need. It may be missing.
type blobLib struct{ create, export, mapInfo uintptr }

func loadBlobLib(file *dl.Library) (b blobLib) {
	// Nothing but optional functions, so that it cannot fail.
	_ = file.Resolve([]dl.Symbol{
		{Name: "virgl_renderer_resource_create_blob", Addr: &b.create, Optional: true},
		{Name: "virgl_renderer_resource_export_blob", Addr: &b.export, Optional: true},
		{Name: "virgl_renderer_resource_get_map_info", Addr: &b.mapInfo, Optional: true},
	})
	return b
}

var _ BlobRenderer = (*renderer)(nil)

// CreateBlob implements BlobRenderer. The library keeps the array of segments by
// reference, as in AttachBacking. A blob of the renderer's own memory is what the
// context made before in its command stream (VIRGL_CCMD_PIPE_RESOURCE_CREATE) and
// called BlobID, which can be used once.
func (r *renderer) CreateBlob(a *BlobArgs, segs [][]byte) error {
	r.check()
	if r.blob.create == 0 {
		return resErr("create blob", a.ID, fmt.Errorf("%w: %s has no blobs", ErrNotSupported, r.info.Library))
	}
	if _, ok := r.resources[a.ID]; ok || a.ID == 0 {
		return resErr("create blob", a.ID, fmt.Errorf("%w: id in use", ErrInvalid))
	}
	if len(segs) > maxSegs {
		return resErr("create blob", a.ID, fmt.Errorf("%w: %d segments, limit %d", ErrInvalid, len(segs), maxSegs))
	}
	e := &resource{blob: a.Size}
	if len(segs) > 0 {
		e.attach(segs)
	}
	r.leaveAlways()
	p := r.scratch[blobArgs : blobArgs+blobArgsLen]
	clear(p)
	for i, v := range [...]uint32{a.ID, a.Ctx, a.Mem, a.Flags} {
		binary.NativeEndian.PutUint32(p[4*i:], v)
	}
	binary.NativeEndian.PutUint64(p[16:], a.BlobID)
	binary.NativeEndian.PutUint64(p[24:], a.Size)
	binary.NativeEndian.PutUint64(p[32:], uint64(e.iov))
	binary.NativeEndian.PutUint32(p[40:], uint32(len(segs)))
	if err := result(r.call(r.blob.create, dl.Addr(p))); err != nil {
		e.detach()
		return resErr("create blob", a.ID, err)
	}
	if a.Mem != blobMemGuest {
		e.args = r.blobTexture(a.ID)
	}
	r.resources[a.ID] = e
	return nil
}

// blobTexture asks what a blob of the renderer's is as a texture; the zero value if
// it is none.
func (r *renderer) blobTexture(res uint32) ResourceArgs {
	info := r.scratch[exportInfo : exportInfo+infoSize]
	clear(info)
	if result(r.call(r.lib.resourceGetInfo, uintptr(res), dl.Addr(info))) != nil {
		return ResourceArgs{ID: res}
	}
	t := parseInfo(info)
	return ResourceArgs{ID: res, Width: t.width, Height: t.height, Depth: 1, ArraySize: 1, Flags: t.flags}
}

// ExportBlob implements BlobRenderer. Opaque descriptors (of a driver's own kind)
// are refused: nobody but the driver can map them.
func (r *renderer) ExportBlob(res uint32) (*dmabuf.FD, uint32, error) {
	r.check()
	e := r.resources[res]
	if e == nil || e.blob == 0 {
		return nil, 0, resErr("export blob", res, fmt.Errorf("%w: no such blob", ErrInvalid))
	}
	if r.blob.export == 0 || r.blob.mapInfo == 0 {
		return nil, 0, resErr("export blob", res, fmt.Errorf("%w: %s has no blobs", ErrNotSupported, r.info.Library))
	}
	r.leave(0)
	r.call(r.lib.forceCtx0)
	out := r.scratch
	clear(out[blobFDType : blobMapInfo+4])
	rc := r.call(r.blob.export, uintptr(res), dl.Addr(out)+blobFDType, dl.Addr(out)+blobFD)
	if err := result(rc); err != nil {
		return nil, 0, resErr("export blob", res, fmt.Errorf("%w: %w", ErrNotSupported, err))
	}
	kind := binary.NativeEndian.Uint32(out[blobFDType:])
	raw := int(int32(binary.NativeEndian.Uint32(out[blobFD:])))
	unix.CloseOnExec(raw)
	fd := dmabuf.NewFD(raw, fmt.Sprintf("virgl blob %d", res))
	if err := r.checkBlobFD(fd, kind, e.blob); err != nil {
		_ = fd.Close()
		return nil, 0, resErr("export blob", res, err)
	}
	if err := result(r.call(r.blob.mapInfo, uintptr(res), dl.Addr(out)+blobMapInfo)); err != nil {
		_ = fd.Close()
		return nil, 0, resErr("export blob", res, fmt.Errorf("%w: cache type: %w", ErrNotSupported, err))
	}
	return fd, binary.NativeEndian.Uint32(out[blobMapInfo:]), nil
}

// checkBlobFD refuses what cannot be mapped whole: a mapping beyond the end of a
// file faults when it is touched.
func (r *renderer) checkBlobFD(fd *dmabuf.FD, kind uint32, size uint64) error {
	if kind != blobFDDMABuf && kind != blobFDShm {
		return fmt.Errorf("%w: descriptor of type %d, only dma-bufs (1) and shared memory (3) can be mapped", ErrNotSupported, kind)
	}
	end, err := unix.Seek(fd.Int(), 0, unix.SEEK_END)
	if err != nil {
		return fmt.Errorf("%w: size of the descriptor: %w", ErrNotSupported, err)
	}
	if uint64(end) < uint64(dmabuf.PageAlign(int64(size))) {
		return fmt.Errorf("%w: descriptor of %d bytes for a blob of %d", ErrNotSupported, end, size)
	}
	return nil
}

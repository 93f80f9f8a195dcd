package virgltest

import (
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl"
)

var _ virgl.BlobRenderer = (*Fake)(nil)

// Values of virgl.BlobArgs.Mem (virtio spec 5.7.6.8).
const (
	memGuest       = 1
	memHost3D      = 2
	memHost3DGuest = 3
)

// mapCached is the cache type of every blob (VIRTIO_GPU_MAP_CACHE_CACHED).
const mapCached = 1

// CreateBlob implements virgl.BlobRenderer. Memory of the renderer's own is a memfd;
// any blob id that is not 0 exists, as often as asked.
func (f *Fake) CreateBlob(a *virgl.BlobArgs, segs [][]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(OpCreateBlob); err != nil {
		return err
	}
	if f.cfg.NoGL {
		return &virgl.OpError{Op: string(OpCreateBlob), Err: virgl.ErrNotSupported}
	}
	if a.ID == 0 || f.resources[a.ID] != nil {
		return f.bad(OpCreateBlob, "resource %d exists", a.ID)
	}
	if a.Size == 0 || a.Size > maxPixels {
		return f.bad(OpCreateBlob, "size %d", a.Size)
	}
	if a.Mem != memGuest && a.Mem != memHost3D && a.Mem != memHost3DGuest {
		return f.bad(OpCreateBlob, "blob_mem %d", a.Mem)
	}
	if a.Mem != memGuest && f.contexts[a.Ctx] == nil {
		return f.bad(OpCreateBlob, "context %d does not exist", a.Ctx)
	}
	have := uint64(0)
	for _, s := range segs {
		have += uint64(len(s))
	}
	if hasPages := a.Mem != memHost3D; hasPages && have < a.Size || !hasPages && len(segs) > 0 {
		return f.bad(OpCreateBlob, "blob_mem %d with %d bytes of pages, size %d", a.Mem, have, a.Size)
	}
	r := &resource{args: virgl.ResourceArgs{ID: a.ID}, blob: a.Size}
	if len(segs) > 0 {
		r.segs = append(r.segs, segs...)
	}
	if a.Mem != memGuest {
		fd, err := dmabuf.NewMemfd("fake blob", dmabuf.PageAlign(int64(a.Size)))
		if err != nil {
			return &virgl.OpError{Op: string(OpCreateBlob), Err: err}
		}
		r.fd = fd
	}
	f.resources[a.ID] = r
	return nil
}

// ExportBlob implements virgl.BlobRenderer: the memfd.
func (f *Fake) ExportBlob(res uint32) (*dmabuf.FD, uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(OpExportBlob); err != nil {
		return nil, 0, err
	}
	r := f.resources[res]
	if r == nil || r.blob == 0 {
		return nil, 0, f.bad(OpExportBlob, "blob %d does not exist", res)
	}
	if r.fd == nil {
		return nil, 0, &virgl.OpError{Op: string(OpExportBlob), Err: virgl.ErrNotSupported}
	}
	fd, err := r.fd.Dup()
	if err != nil {
		return nil, 0, &virgl.OpError{Op: string(OpExportBlob), Err: err}
	}
	return fd, mapCached, nil
}

package virgl

import "github.com/gpubroker/gpubroker/dmabuf"

// BlobArgs are the arguments of VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB, in its own
// terms (virtio spec 5.7.6.8).
type BlobArgs struct {
	ID, Ctx    uint32
	Mem, Flags uint32
	BlobID     uint64
	Size       uint64 // bytes
}

// BlobRenderer is a Renderer that makes blob resources. Called on the render
// thread.
type BlobRenderer interface {
	Renderer
	// CreateBlob makes a blob resource. segs are the guest's pages of guest and
	// shared blobs; they stay mapped until UnrefResource.
	CreateBlob(a *BlobArgs, segs [][]byte) error
	// ExportBlob returns a descriptor that the blob's host memory can be mapped
	// from (the caller's), and the cache type for RESP_OK_MAP_INFO. ErrNotSupported
	// where the driver cannot.
	ExportBlob(res uint32) (*dmabuf.FD, uint32, error)
}

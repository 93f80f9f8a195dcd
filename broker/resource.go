package broker

import (
	"crypto/rand"
	"slices"

	"github.com/gpubroker/gpubroker/broker/crossdomain"
	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl"
)

// resourceKind says who holds a resource's pixels.
type resourceKind uint8

const (
	kind2D   resourceKind = iota + 1 // the broker: a GBM buffer or a memfd
	kind3D                           // the renderer
	kindBlob                         // guest pages, or host memory that the guest can map
)

func (k resourceKind) String() string {
	switch k {
	case kind3D:
		return "3d"
	case kindBlob:
		return "blob"
	}
	return "2d"
}

// resource is one row of the resource table. Render thread only.
type resource struct {
	id      uint32
	kind    resourceKind
	args    virgl.ResourceArgs
	fourcc  dmabuf.Fourcc // 0 if the format is none that can be shown
	backing *guestmem.Backing
	ctxs    []uint32 // contexts that it is attached to
	heads   uint32   // bit set of the scanouts that show it

	// buf holds a 2D resource's pixels.
	buf *dmabuf.Buffer
	// blob is what a blob resource is; nil for classic ones.
	blob *blob
	// pics are its pictures; a classic resource has at most one.
	pics []*picture

	// handles is how many times it is open (handle). What the guest gave up stays
	// until that is 0; gone says why it is in no table any more.
	handles int
	gone    error
	kept    *dmabuf.Buffer // its export, once it is gone
	left    []uint32       // contexts that it was detached from while it was open
	owner   proxy.Owner    // of the import device's: who named it first
	owned   bool

	// shm is memory that a vtest client shares with the renderer.
	shm []byte

	seen map[uint64]uint64 // hashes of a blob's pages in the recording

	create, attach []byte // commands that made it, where they are kept (keeping.go)

	uuid    [16]byte
	hasUUID bool
}

// layout is how a classic resource is shown.
func (r *resource) layout() layout {
	return layout{w: r.args.Width, h: r.args.Height, fourcc: r.fourcc}
}

// assignUUID gives the resource a random RFC 4122 version 4 id, once.
func (r *resource) assignUUID() [16]byte {
	if !r.hasUUID {
		_, _ = rand.Read(r.uuid[:]) // never fails (crypto/rand)
		r.uuid[6] = r.uuid[6]&0x0f | 0x40
		r.uuid[8] = r.uuid[8]&0x3f | 0x80
		r.hasUUID = true
	}
	return r.uuid
}

func (r *resource) attachCtx(ctx uint32) {
	if !slices.Contains(r.ctxs, ctx) {
		r.ctxs = append(r.ctxs, ctx)
	}
}

func (r *resource) detachCtx(ctx uint32) {
	if i := slices.Index(r.ctxs, ctx); i >= 0 {
		r.ctxs = slices.Delete(r.ctxs, i, i+1)
		if r.handles > 0 && len(r.left) < maxLeft && !slices.Contains(r.left, ctx) {
			r.left = append(r.left, ctx)
		}
	}
}

// maxLeft limits resource.left; few contexts share a resource.
const maxLeft = 16

// guestContext is one row of the context table.
type guestContext struct {
	id   uint32
	init uint32
	name string
	pins []*handle // resources that it named and nobody opened yet
	// cross is what a cross-domain context is; the renderer does not know those.
	cross *crossdomain.Context
	// onFence, if set, hears of the renderer fences that have signalled.
	onFence func(id uint32)

	submits   uint64 // position of its last SUBMIT_3D among all contexts'
	submitted uint64 // how many SUBMIT_3D it had
	fence     uint32 // newest renderer fence
	signalled bool   // the renderer reported that one
	dirty     bool   // it submitted after its newest fence
	idle      bool   // nothing submitted is unfinished
}

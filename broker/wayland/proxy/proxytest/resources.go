package proxytest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// Resources is a table of resources in memfds.
type Resources struct {
	mu      sync.Mutex
	table   map[key]*Resource
	formats []proxy.Format
	open    int // resources open now
}

type key struct {
	dev proxy.DeviceID
	id  uint32
}

// NewResources makes an empty table of a device that draws the formats.
func NewResources(fourccs ...dmabuf.Fourcc) *Resources {
	r := &Resources{table: map[key]*Resource{}}
	for _, f := range fourccs {
		r.formats = append(r.formats, proxy.Format{Fourcc: f, Modifier: dmabuf.ModLinear}, proxy.Format{Fourcc: f, Modifier: dmabuf.ModInvalid})
	}
	return r
}

// Resource is one entry. Fields are set before it is added.
type Resource struct {
	Owner  proxy.Owner
	W, H   uint32        // of a texture
	Format dmabuf.Fourcc // of a texture, as the guest knows it
	// Export is what Buffer returns; nil means ErrNotExportable.
	Export *dmabuf.Buffer
	// Blob is the memory; DMABuf says what Memory calls it.
	Blob   *dmabuf.FD
	Bytes  uint64
	DMABuf bool
	// Wait is called by Drawn and Read; nil returns at once.
	Wait func(ctx context.Context) error
	// Pixels is what Read copies from: 4 bytes a pixel, W*H.
	Pixels []byte

	id    uint32
	r     *Resources
	mu    sync.Mutex
	drawn int
	reads []display.Rect
}

// Add puts a resource into the table.
func (r *Resources) Add(dev proxy.DeviceID, id uint32, res *Resource) *Resource {
	r.mu.Lock()
	defer r.mu.Unlock()
	res.id, res.r = id, r
	r.table[key{dev, id}] = res
	return res
}

// AddBlob adds a memfd of size bytes as a resource of the import device.
func (r *Resources) AddBlob(t testing.TB, id uint32, size int64) *Resource {
	t.Helper()
	fd, err := dmabuf.NewMemfd("test blob", size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fd.Close() })
	return r.Add(proxy.DeviceImport, id, &Resource{Blob: fd, Bytes: uint64(size)})
}

// AddTexture adds a texture that the GPU draws, exported as a "dma-buf" (a memfd).
func (r *Resources) AddTexture(t testing.TB, id, w, h uint32, format, export dmabuf.Fourcc) *Resource {
	t.Helper()
	fd, err := dmabuf.NewMemfd("test texture", int64(w*h*4)+4096)
	if err != nil {
		t.Fatal(err)
	}
	b, err := dmabuf.New(dmabuf.Desc{Kind: dmabuf.KindDMABuf, Width: w, Height: h, Fourcc: export, Modifier: dmabuf.ModLinear,
		Planes: []dmabuf.Plane{{FD: fd, Stride: w * 4}}, Origin: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Release)
	return r.Add(proxy.DeviceGPU, id, &Resource{W: w, H: h, Format: format, Export: b, Pixels: make([]byte, w*h*4)})
}

// Open implements proxy.Resources.
func (r *Resources) Open(ctx context.Context, owner proxy.Owner, dev proxy.DeviceID, id uint32) (proxy.Resource, error) {
	for {
		r.mu.Lock()
		res := r.table[key{dev, id}]
		if res != nil && res.Owner != (proxy.Owner{}) && res.Owner != owner {
			r.mu.Unlock()
			return nil, proxy.ErrNotOwned
		}
		if res != nil {
			r.open++
			r.mu.Unlock()
			return &handle{Resource: res}, nil
		}
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, proxy.ErrUnknownResource
		case <-time.After(time.Millisecond):
		}
	}
}

// Formats implements proxy.Resources.
func (r *Resources) Formats() []proxy.Format { return r.formats }

// OpenCount returns how many resources are open now.
func (r *Resources) OpenCount() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

// closeBlobs closes the memory of the resources from id on.
func (r *Resources) closeBlobs(id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, res := range r.table {
		if k.id >= id {
			_ = res.Blob.Close()
		}
	}
}

// Len returns how many resources the table has.
func (r *Resources) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.table)
}

// handle is one Open of a resource.
type handle struct {
	*Resource
	closed bool
}

func (h *handle) ID() uint32 { return h.id }

func (h *handle) Texture() (w, hh uint32, f dmabuf.Fourcc, ok bool) {
	return h.W, h.H, h.Format, h.W > 0
}

// Size is the file's, if Bytes is 0.
func (h *handle) Size() uint64 {
	var st unix.Stat_t
	if h.Bytes == 0 && h.Blob != nil && unix.Fstat(h.Blob.Int(), &st) == nil {
		return uint64(st.Size)
	}
	return h.Bytes
}

func (h *handle) Buffer(context.Context) (*dmabuf.Buffer, error) {
	if h.Export == nil {
		return nil, fmt.Errorf("%w: the test says so", proxy.ErrNotExportable)
	}
	return h.Export.Retain(), nil
}

func (h *handle) Memory(context.Context) (*dmabuf.FD, bool, error) {
	if h.Blob == nil {
		return nil, false, fmt.Errorf("%w: it has no memory", proxy.ErrNotExportable)
	}
	fd, err := h.Blob.Dup()
	return fd, h.DMABuf, err
}

func (h *handle) wait(ctx context.Context) error {
	if h.Wait == nil {
		return ctx.Err()
	}
	return h.Wait(ctx)
}

func (h *handle) Drawn(ctx context.Context) error {
	h.mu.Lock()
	h.drawn++
	h.mu.Unlock()
	return h.wait(ctx)
}

// DrawnCount returns how often Drawn was called.
func (res *Resource) DrawnCount() int {
	res.mu.Lock()
	defer res.mu.Unlock()
	return res.drawn
}

// Reads returns the rectangles of all Reads.
func (res *Resource) Reads() []display.Rect {
	res.mu.Lock()
	defer res.mu.Unlock()
	return append([]display.Rect(nil), res.reads...)
}

// Draw sets the texture's pixels, or the blob's bytes, to a word.
func (res *Resource) Draw(v uint32) {
	res.mu.Lock()
	defer res.mu.Unlock()
	for i := 0; i+4 <= len(res.Pixels); i += 4 {
		res.Pixels[i], res.Pixels[i+1], res.Pixels[i+2], res.Pixels[i+3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
	}
}

// Set replaces the texture's pixels.
func (res *Resource) Set(pixels []byte) {
	res.mu.Lock()
	defer res.mu.Unlock()
	copy(res.Pixels, pixels)
}

func (h *handle) Read(ctx context.Context, as proxy.Layout, rect display.Rect, dst *dmabuf.Buffer) (uint64, error) {
	if err := h.wait(ctx); err != nil {
		return 0, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads = append(h.reads, rect)
	from, src, stride, at := h.Format, h.Pixels, h.W*4, uint64(0)
	if h.W == 0 {
		from, stride, at = as.Fourcc, as.Stride, uint64(as.Offset)
		src = make([]byte, h.Bytes)
		if _, err := unix.Pread(h.Blob.Int(), src, 0); err != nil {
			return 0, err
		}
	}
	conv, err := shmfallback.ConvertFor(from, dst.Fourcc)
	if err != nil {
		return 0, err
	}
	meter := shmfallback.NewMeter(nil)
	err = meter.CopyRect(&shmfallback.Copy{Dst: dst.Mem, DstStride: dst.Planes[0].Stride, DstX: rect.X, DstY: rect.Y,
		Src: [][]byte{src}, SrcOffset: at + uint64(rect.Y)*uint64(stride) + uint64(rect.X)*4, SrcStride: stride,
		W: rect.W, H: rect.H, BytesPerPixel: 4, Convert: conv})
	return meter.Bytes(), err
}

func (h *handle) Close() error {
	h.r.mu.Lock()
	defer h.r.mu.Unlock()
	if h.closed {
		panic("proxytest: a resource was closed twice")
	}
	h.closed = true
	h.r.open--
	return nil
}

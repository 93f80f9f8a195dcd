package gbm

import (
	"errors"
	"fmt"
	"sync"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl/dl"
)

// Use says what a buffer is for (enum gbm_bo_flags).
type Use uint32

// The uses; they may be added.
const (
	UseScanout   Use = 1 << 0
	UseCursor    Use = 1 << 1
	UseRendering Use = 1 << 2
	UseWrite     Use = 1 << 3 // dumb buffers, for drivers without rendering
	UseLinear    Use = 1 << 4 // rows one after the other
)

// Device is a GBM device on a DRM node.
type Device struct {
	lib     *lib
	node    string
	backend string

	mu     sync.Mutex
	dev    uintptr    // guarded by mu; struct gbm_device, 0 once destroyed
	fd     *dmabuf.FD // guarded by mu; the node, which libgbm uses but does not own
	bos    int        // guarded by mu; buffer objects that need dev
	closed bool       // guarded by mu
}

// OpenDevice opens a DRM node, such as /dev/dri/renderD128, and a GBM device on it.
//
// The error wraps [ErrLibrary] when libgbm is missing, and [ErrNotSupported] when the
// node is missing, is no DRM node, or no driver of libgbm's wants it.
func OpenDevice(node string) (*Device, error) {
	l, err := load()
	if err != nil {
		return nil, &OpError{"open", node, err}
	}
	fd, err := dmabuf.OpenDRM(node)
	if err != nil {
		return nil, &OpError{"open", node, fmt.Errorf("%w: %w", ErrNotSupported, err)}
	}
	dev, err := explain(l.createDevice, uintptr(fd.Int()))
	if dev == 0 {
		_ = fd.Close()
		return nil, &OpError{"open", node, fmt.Errorf("%w: no GBM driver takes it: %w", ErrNotSupported, err)}
	}
	return &Device{
		lib: l, node: node, backend: dl.String(call(l.deviceGetBackendName, dev), 64),
		dev: dev, fd: fd,
	}, nil
}

// Node returns the path given to OpenDevice.
func (d *Device) Node() string { return d.node }

// Backend returns the name of libgbm's driver, such as "drm".
func (d *Device) Backend() string { return d.backend }

// Close closes the device. Buffer objects that are still open keep what they need of
// it until they are closed; nothing new can be made. A second Close does nothing.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return d.destroy()
}

// destroy destroys the device once nothing needs it. Called with mu.
func (d *Device) destroy() error {
	if !d.closed || d.bos > 0 || d.dev == 0 {
		return nil
	}
	call(d.lib.deviceDestroy, d.dev)
	d.dev = 0
	return d.fd.Close()
}

// Supports reports whether the driver can make a buffer of that format for that use.
func (d *Device) Supports(f dmabuf.Fourcc, use Use) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	return int32(call(d.lib.deviceIsFormatSupported, d.dev, uintptr(f), uintptr(use))) != 0
}

// ModifierPlanes returns how many memory planes a buffer of that format and modifier
// has on this driver, 0 if it knows neither. ErrNotSupported: the library cannot say.
func (d *Device) ModifierPlanes(f dmabuf.Fourcc, m dmabuf.Modifier) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	object := fmt.Sprintf("%v %v on %s", f, m, d.node)
	if d.closed {
		return 0, &OpError{"look up", object, ErrClosed}
	}
	if d.lib.deviceGetFormatModifierPlaneCount == 0 {
		return 0, &OpError{"look up", object, fmt.Errorf("%w: libgbm is too old", ErrNotSupported)}
	}
	n := int32(call(d.lib.deviceGetFormatModifierPlaneCount, d.dev, uintptr(f), uintptr(m)))
	return max(int(n), 0), nil
}

// Request describes a buffer to allocate.
type Request struct {
	Width, Height uint32 // pixels
	Fourcc        dmabuf.Fourcc
	Use           Use
	// Modifiers, if any, limits the driver's choice of layout. Without, the layout is
	// the driver's secret unless Use has UseLinear.
	Modifiers []dmabuf.Modifier
}

const maxModifiers = 1024

func (q *Request) check() error {
	if q.Width == 0 || q.Height == 0 || q.Width > dmabuf.MaxDimension || q.Height > dmabuf.MaxDimension {
		return fmt.Errorf("%w: size %dx%d, limit %dx%d", ErrInvalid, q.Width, q.Height, dmabuf.MaxDimension, dmabuf.MaxDimension)
	}
	if len(q.Modifiers) > maxModifiers {
		return fmt.Errorf("%w: %d modifiers, limit %d", ErrInvalid, len(q.Modifiers), maxModifiers)
	}
	return nil
}

// Allocate makes a buffer object. The caller closes it.
func (d *Device) Allocate(q Request) (*BO, error) {
	object := fmt.Sprintf("%dx%d %v on %s", q.Width, q.Height, q.Fourcc, d.node)
	if err := q.check(); err != nil {
		return nil, &OpError{"allocate", object, err}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, &OpError{"allocate", object, ErrClosed}
	}
	bo, err := d.create(&q)
	if bo == 0 {
		return nil, &OpError{"allocate", object, err}
	}
	return d.adopt(bo), nil
}

// create calls the right gbm_bo_create. Called with mu.
func (d *Device) create(q *Request) (uintptr, error) {
	if len(q.Modifiers) == 0 {
		return explain(d.lib.boCreate, d.dev, uintptr(q.Width), uintptr(q.Height), uintptr(q.Fourcc), uintptr(q.Use))
	}
	list := dl.Malloc(8 * len(q.Modifiers))
	defer dl.Free(list)
	putModifiers(dl.Bytes(list, 8*len(q.Modifiers)), q.Modifiers)
	args := []uintptr{d.dev, uintptr(q.Width), uintptr(q.Height), uintptr(q.Fourcc), list, uintptr(len(q.Modifiers))}
	if d.lib.boCreateWithModifiers2 == 0 {
		return explain(d.lib.boCreateWithModifiers, args...)
	}
	return explain(d.lib.boCreateWithModifiers2, append(args, uintptr(q.Use))...)
}

// adopt wraps a new buffer object. Called with mu.
func (d *Device) adopt(bo uintptr) *BO {
	d.bos++
	return &BO{
		dev: d, bo: bo,
		Width:    uint32(call(d.lib.boGetWidth, bo)),
		Height:   uint32(call(d.lib.boGetHeight, bo)),
		Fourcc:   dmabuf.Fourcc(call(d.lib.boGetFormat, bo)),
		Modifier: dmabuf.Modifier(call(d.lib.boGetModifier, bo)),
	}
}

// gbmImportFDModifier is GBM_BO_IMPORT_FD_MODIFIER; its argument is struct
// gbm_import_fd_modifier_data.
const (
	gbmImportFDModifier = 0x5504
	importSize          = 72
)

// Import makes a buffer object of somebody's dma-buf. The buffer stays the caller's;
// the object holds the memory by itself. Only buffers of [dmabuf.KindDMABuf] can be
// imported.
func (d *Device) Import(b *dmabuf.Buffer, use Use) (*BO, error) {
	object := fmt.Sprintf("%v to %s", b, d.node)
	if b.Kind != dmabuf.KindDMABuf {
		return nil, &OpError{"import", object, fmt.Errorf("%w: it is shared memory, not a dma-buf", ErrNotSupported)}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, &OpError{"import", object, ErrClosed}
	}
	data := dl.Malloc(importSize)
	defer dl.Free(data)
	putImport(dl.Bytes(data, importSize), b)
	bo, err := explain(d.lib.boImport, d.dev, gbmImportFDModifier, data, uintptr(use))
	if bo == 0 {
		return nil, &OpError{"import", object, err}
	}
	return d.adopt(bo), nil
}

// Alloc2D makes a buffer for the CPU to draw in and others to show: linear, in one
// plane, mapped, with one reference, held by the caller. It lives on when the device
// is closed. ErrNotSupported says that the driver has no such buffer.
func (d *Device) Alloc2D(width, height uint32, f dmabuf.Fourcc) (*dmabuf.Buffer, error) {
	var bo *BO
	var errs []error
	// Drivers that only scan out (vgem, virtio, small SoCs) want the second.
	for _, use := range []Use{UseScanout | UseLinear, UseScanout | UseWrite, UseLinear} {
		var err error
		bo, err = d.Allocate(Request{Width: width, Height: height, Fourcc: f, Use: use})
		if err == nil {
			break
		}
		errs = append(errs, err)
	}
	if bo == nil {
		return nil, errors.Join(errs...)
	}
	b, err := bo.exportMapped()
	if err != nil {
		_ = bo.Close()
		return nil, err
	}
	return b, nil
}

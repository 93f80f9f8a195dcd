package virgl

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl/dl"
)

// struct virgl_renderer_resource_info and _ext (virglrenderer.h). The buffers are
// larger than any release's struct and zeroed first: 1.0 appended a field, and
// some releases look at fields on the way in.
const (
	infoSize = 128

	infoWidth  = 8
	infoHeight = 12
	infoFlags  = 20
	infoTexID  = 24
	infoFourcc = 32

	extBase      = 4
	extHasExport = 44
	extPlanes    = 48
	extModifier  = 56
)

// Where export puts what it asks for in the call buffers.
const (
	exportInfo    = 0
	exportFDs     = 256
	exportStrides = 288
	exportOffsets = 320
	exportQuery   = 384
)

// texture is what Export needs to know of a resource.
type texture struct {
	id            uint32
	width, height uint32
	fourcc        dmabuf.Fourcc
	modifier      dmabuf.Modifier
	planes        int // 0: as many as come out
	flags         uint32
}

// Export implements Renderer. Fourcc, strides, offsets and modifier are the
// driver's own: they need not match the guest's format (llvmpipe stores a
// B8G8R8A8 resource as ABGR8888). A resource with [FlagY0Top] has its last row first in
// memory, so the buffer has YInvert.
//
// It first waits for all work submitted so far: llvmpipe moves a texture to new
// memory when it is exported and frees the old, whether or not its threads are
// drawing there (llvmpipe_resource_get_handle, Mesa 24.2 to 26.1).
func (r *renderer) Export(res uint32) (*dmabuf.Buffer, error) {
	r.check()
	if r.resources[res] == nil {
		return nil, resErr("export", res, fmt.Errorf("%w: no such resource", ErrInvalid))
	}
	r.settle()
	if seqLess(r.fences.retired, r.fences.made) {
		return nil, resErr("export", res, fmt.Errorf("%w: drawing did not finish in %v", ErrNotSupported, settleTimeout))
	}
	r.leave(0)
	r.call(r.lib.forceCtx0)
	t, err := r.texture(res)
	if err != nil {
		return nil, resErr("export", res, err)
	}
	planes, err := r.exportPlanes(res, t)
	if err != nil {
		return nil, resErr("export", res, err)
	}
	b, err := dmabuf.New(dmabuf.Desc{
		Kind:     dmabuf.KindDMABuf,
		Width:    t.width,
		Height:   t.height,
		Fourcc:   t.fourcc,
		Modifier: t.modifier,
		Planes:   planes,
		YInvert:  t.flags&FlagY0Top != 0,
		Origin:   "virgl",
	})
	if err != nil {
		return nil, resErr("export", res, err)
	}
	return b, nil
}

// texture describes a resource's texture. Context 0 is current.
func (r *renderer) texture(res uint32) (texture, error) {
	info := r.scratch[exportInfo : exportInfo+infoSize]
	clear(info)
	if r.lib.resourceGetInfoExt == 0 {
		return r.textureBefore1(res, info)
	}
	if err := result(r.call(r.lib.resourceGetInfoExt, uintptr(res), dl.Addr(info))); err != nil {
		return texture{}, fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	t := parseInfo(info[extBase:])
	if info[extHasExport] == 0 {
		return t, fmt.Errorf("%w: the driver exports no dma-bufs", ErrNotSupported)
	}
	t.planes = int(int32(binary.NativeEndian.Uint32(info[extPlanes:])))
	t.modifier = dmabuf.Modifier(binary.NativeEndian.Uint64(info[extModifier:]))
	return t, t.check()
}

// textureBefore1 is texture for libraries before 1.0, which say neither planes nor
// modifier.
func (r *renderer) textureBefore1(res uint32, info []byte) (texture, error) {
	if r.egl == nil {
		if r.egl = loadEGL(); r.egl == nil {
			return texture{}, fmt.Errorf("%w: EGL lacks EGL_MESA_image_dma_buf_export", ErrNotSupported)
		}
	}
	if err := result(r.call(r.lib.resourceGetInfo, uintptr(res), dl.Addr(info))); err != nil {
		return texture{}, fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	t := parseInfo(info)
	var err error
	t.fourcc, t.planes, t.modifier, err = r.egl.query(t.id, r.scratch[exportQuery:])
	if err != nil {
		return t, err
	}
	return t, t.check()
}

func parseInfo(info []byte) texture {
	u32 := func(off int) uint32 { return binary.NativeEndian.Uint32(info[off:]) }
	return texture{
		id:     u32(infoTexID),
		width:  u32(infoWidth),
		height: u32(infoHeight),
		flags:  u32(infoFlags),
		fourcc: dmabuf.Fourcc(u32(infoFourcc)),
	}
}

func (t *texture) check() error {
	if t.id == 0 {
		return fmt.Errorf("%w: it has no texture", ErrNotSupported)
	}
	if t.fourcc == 0 {
		return fmt.Errorf("%w: its format has no fourcc", ErrNotSupported)
	}
	if t.planes < 0 || t.planes > dmabuf.MaxPlanes {
		return fmt.Errorf("%w: %d planes, limit %d", ErrNotSupported, t.planes, dmabuf.MaxPlanes)
	}
	return nil
}

// exportPlanes makes one descriptor per plane. The driver fills as many entries of
// the three arrays as the texture has planes, whatever the caller expected, so
// they always have room for all.
func (r *renderer) exportPlanes(res uint32, t texture) ([]dmabuf.Plane, error) {
	fds := r.scratch[exportFDs : exportFDs+4*dmabuf.MaxPlanes]
	strides := r.scratch[exportStrides : exportStrides+4*dmabuf.MaxPlanes]
	offsets := r.scratch[exportOffsets : exportOffsets+4*dmabuf.MaxPlanes]
	for i := range fds {
		fds[i] = 0xff // -1
	}
	clear(strides)
	clear(offsets)
	rc := r.call(r.lib.getFDForTexture2, uintptr(t.id), dl.Addr(fds), dl.Addr(strides), dl.Addr(offsets))
	if err := result(rc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	var planes []dmabuf.Plane
	for i := range dmabuf.MaxPlanes {
		raw := int(int32(binary.NativeEndian.Uint32(fds[4*i:])))
		if raw < 0 {
			break
		}
		unix.CloseOnExec(raw)
		planes = append(planes, dmabuf.Plane{
			FD:     dmabuf.NewFD(raw, fmt.Sprintf("virgl resource %d plane %d", res, i)),
			Stride: binary.NativeEndian.Uint32(strides[4*i:]),
			Offset: binary.NativeEndian.Uint32(offsets[4*i:]),
		})
	}
	if t.planes != 0 && len(planes) != t.planes {
		for _, p := range planes {
			_ = p.FD.Close()
		}
		return nil, fmt.Errorf("%w: %d descriptors for %d planes", ErrNotSupported, len(planes), t.planes)
	}
	return planes, nil
}

// Formats, targets and bind flags of the resource that probes for export
// (virgl_hw.h, p_defines.h).
const (
	formatB8G8R8A8    = 1
	targetTexture2D   = 2
	bindRenderTarget  = 1 << 1
	bindSamplerView   = 1 << 3
	probeResource     = 0xffffffff
	probeWidth        = 64
	bindForProbe      = bindRenderTarget | bindSamplerView
	probeArrayAndSize = 1
)

// probeExport finds out whether the driver gives dma-bufs, by trying.
func (r *renderer) probeExport() bool {
	err := r.CreateResource(&ResourceArgs{
		ID: probeResource, Target: targetTexture2D, Format: formatB8G8R8A8, Bind: bindForProbe,
		Width: probeWidth, Height: probeWidth, Depth: probeArrayAndSize, ArraySize: probeArrayAndSize,
	})
	if err != nil {
		r.log.Warn(err.Error())
		return false
	}
	defer r.UnrefResource(probeResource)
	b, err := r.Export(probeResource)
	if err != nil {
		r.log.Debug(err.Error())
		return false
	}
	b.Release()
	return true
}

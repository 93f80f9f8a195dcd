package proxy

import (
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// morePacked are further formats of one plane whose pixels have a whole number of
// bytes, by their codes in drm_fourcc.h.
var morePacked = map[string]uint32{
	"C8  ": 1, "R16 ": 2, "GR88": 2, "RG88": 2, "GR32": 4, "RG32": 4,
	"XR12": 2, "XB12": 2, "RX12": 2, "BX12": 2, "AR12": 2, "AB12": 2, "RA12": 2, "BA12": 2,
	"XR15": 2, "XB15": 2, "RX15": 2, "BX15": 2, "AR15": 2, "AB15": 2, "RA15": 2, "BA15": 2, "BG16": 2,
	"RX30": 4, "BX30": 4, "RA30": 4, "BA30": 4,
	"XR48": 8, "XB48": 8, "AR48": 8, "AB48": 8, "XR4H": 8, "AR4H": 8,
}

// pixelBytes returns the bytes of a pixel of a packed format, 0 for all others.
func pixelBytes(f dmabuf.Fourcc) uint32 {
	if f == dmabuf.NV12 {
		return 0
	}
	if n := f.BytesPerPixel(); n > 0 {
		return n
	}
	return morePacked[string([]byte{byte(f), byte(f >> 8), byte(f >> 16), byte(f >> 24)})]
}

// shmFourcc returns the DRM format of a wl_shm format: the same number, but for the
// two that wl_shm had first (wl_shm.format in wayland.xml).
func shmFourcc(f proto.WlShmFormat) dmabuf.Fourcc {
	switch f {
	case proto.WlShmFormatArgb8888:
		return dmabuf.ARGB8888
	case proto.WlShmFormatXrgb8888:
		return dmabuf.XRGB8888
	}
	return dmabuf.Fourcc(f)
}

// converted returns the format in which a picture goes to the compositor when it is
// copied; false if its format cannot be converted.
func converted(f dmabuf.Fourcc) (dmabuf.Fourcc, bool) {
	to := dmabuf.XRGB8888
	if f.HasAlpha() {
		to = dmabuf.ARGB8888
	}
	_, err := shmfallback.ConvertFor(f, to)
	return to, err == nil
}

// exportFormat returns the format under which an export goes out that the guest
// calls wants and whose texture it knows as tex: the bytes are the export's, whether
// alpha counts is the guest's to say. False if the guest takes the texture for
// something else than it is.
func exportFormat(export, tex, wants dmabuf.Fourcc) (dmabuf.Fourcc, bool) {
	if tex.Opaque() != wants.Opaque() {
		return wants, export == tex && pixelBytes(export) == pixelBytes(wants) && pixelBytes(wants) != 0
	}
	if !wants.HasAlpha() {
		return export.Opaque(), true
	}
	return withAlpha(export), true
}

// withAlpha returns the twin of an X format whose alpha counts; itself if there is none.
func withAlpha(f dmabuf.Fourcc) dmabuf.Fourcc {
	for _, a := range []dmabuf.Fourcc{dmabuf.ARGB8888, dmabuf.ABGR8888, dmabuf.RGBA8888, dmabuf.BGRA8888,
		dmabuf.ARGB2101010, dmabuf.ABGR2101010, dmabuf.ABGR16161616F} {
		if a != f && a.Opaque() == f {
			return a
		}
	}
	return f
}

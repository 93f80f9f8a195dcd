package dmabuf_test

import (
	"errors"
	"testing"

	"github.com/gpubroker/gpubroker/dmabuf"
)

func TestFourcc(t *testing.T) {
	for _, c := range []struct {
		f      dmabuf.Fourcc
		code   uint32
		name   string
		bytes  uint32
		opaque dmabuf.Fourcc
	}{
		{dmabuf.XRGB8888, 0x34325258, "XRGB8888", 4, dmabuf.XRGB8888},
		{dmabuf.ARGB8888, 0x34325241, "ARGB8888", 4, dmabuf.XRGB8888},
		{dmabuf.ABGR8888, 0x34324241, "ABGR8888", 4, dmabuf.XBGR8888},
		{dmabuf.BGRA8888, 0x34324142, "BGRA8888", 4, dmabuf.BGRX8888},
		{dmabuf.RGB565, 0x36314752, "RGB565", 2, dmabuf.RGB565},
		{dmabuf.ABGR16161616F, 0x48344241, "ABGR16161616F", 8, dmabuf.XBGR16161616F},
		{0x20203859, 0x20203859, "'Y8  '", 0, 0x20203859},
		{0x00000001, 0x00000001, "fourcc(0x00000001)", 0, 0x00000001},
	} {
		if uint32(c.f) != c.code || c.f.String() != c.name || c.f.BytesPerPixel() != c.bytes || c.f.Opaque() != c.opaque ||
			c.f.HasAlpha() != (c.opaque != c.f) {
			t.Errorf("%#x: %v, %d bytes, opaque %v; want %+v", uint32(c.f), c.f, c.f.BytesPerPixel(), c.f.Opaque(), c)
		}
	}
}

func TestParseFourcc(t *testing.T) {
	for text, want := range map[string]dmabuf.Fourcc{"XRGB8888": dmabuf.XRGB8888, "XR24": dmabuf.XRGB8888, "R8": dmabuf.R8, "NV12": dmabuf.NV12} {
		if got, err := dmabuf.ParseFourcc(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "xrgb8888", "XRGB", "toolong", "A\x00B\x01"} {
		got, err := dmabuf.ParseFourcc(text)
		if text == "XRGB" { // four printable characters are a code
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if !errors.Is(err, dmabuf.ErrInvalid) {
			t.Errorf("%q: %v, %v; want ErrInvalid", text, got, err)
		}
	}
}

func TestModifier(t *testing.T) {
	for m, want := range map[dmabuf.Modifier]string{
		dmabuf.ModLinear:              "LINEAR",
		dmabuf.ModInvalid:             "INVALID",
		0x0100000000000001:            "INTEL(X_TILED)",
		0x0100000000000009:            "INTEL(4_TILED)",
		0x01000000000000ff:            "INTEL(0xff)",
		0x0200000000401a03:            "AMD(0x401a03)",
		0x0300000000606014:            "NVIDIA(0x606014)",
		0xee00000000000001:            "vendor 238(0x1)",
		dmabuf.Modifier(1<<56 | 1<<4): "INTEL(4_TILED_LNL_CCS)",
	} {
		if got := m.String(); got != want {
			t.Errorf("%#x is %q, want %q", uint64(m), got, want)
		}
	}
	if v := dmabuf.Modifier(0x0300000000606014).Vendor(); v != 3 {
		t.Errorf("vendor %d, want 3", v)
	}
}

func TestParseModifier(t *testing.T) {
	for text, want := range map[string]dmabuf.Modifier{
		"LINEAR": dmabuf.ModLinear, "linear": dmabuf.ModLinear, "INVALID": dmabuf.ModInvalid,
		"0x100000000000001": 0x100000000000001, "INTEL(X_TILED)": 0x100000000000001, "AMD(0x401a03)": 0x200000000401a03, "0": 0,
	} {
		if got, err := dmabuf.ParseModifier(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "tiled", "INTEL(NO_SUCH)", "NOBODY(1)", "INTEL(1", "-1", "AMD(0x1ffffffffffffff)"} {
		if got, err := dmabuf.ParseModifier(text); !errors.Is(err, dmabuf.ErrInvalid) {
			t.Errorf("%q: %v, %v; want ErrInvalid", text, got, err)
		}
	}
}

func TestKind(t *testing.T) {
	if dmabuf.KindDMABuf.String() != "dmabuf" || dmabuf.KindShm.String() != "shm" || dmabuf.Kind(7).String() != "kind(7)" {
		t.Errorf("%v %v %v", dmabuf.KindDMABuf, dmabuf.KindShm, dmabuf.Kind(7))
	}
}

package broker_test

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/png"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// paintBlock writes a picture in which no two pixels near each other are alike, and
// returns it as a shot has to show it.
func paintBlock(b *fakeguest.Block, w, h int, stride, offset uint64, put func(p []byte, c color.NRGBA), alpha bool) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.NRGBA{R: uint8(3 * x), G: uint8(7 * y), B: uint8(x + y), A: uint8(200 - x)}
			var p [4]byte
			put(p[:], c)
			b.WriteAt(p[:], offset+uint64(y)*stride+uint64(4*x))
			if !alpha {
				c.A = 255
			}
			img.SetNRGBA(x, y, c)
		}
	}
	return img
}

func bgra(p []byte, c color.NRGBA) { p[0], p[1], p[2], p[3] = c.B, c.G, c.R, c.A }
func rgba(p []byte, c color.NRGBA) { p[0], p[1], p[2], p[3] = c.R, c.G, c.B, c.A }
func argb(p []byte, c color.NRGBA) { p[0], p[1], p[2], p[3] = c.A, c.R, c.G, c.B }

func decodeShot(t *testing.T, s *broker.Shot) *image.NRGBA {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(s.PNG))
	if err != nil {
		t.Fatal(err)
	}
	out := image.NewNRGBA(img.Bounds())
	for y := range out.Rect.Dy() {
		for x := range out.Rect.Dx() {
			out.Set(x, y, img.At(x, y)) // exact: an NRGBA picture without alpha is read as RGBA
		}
	}
	return out
}

func sameShot(t *testing.T, name string, s *broker.Shot, err error, want image.Image) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if s.Width != want.Bounds().Dx() || s.Height != want.Bounds().Dy() {
		t.Errorf("%s: %dx%d", name, s.Width, s.Height)
	}
	golden.Equal(t, name, decodeShot(t, s), want, golden.Tolerance{})
}

// TestShot2D: resources and scanouts of each kind of format, pixel for pixel.
func TestShot2D(t *testing.T) {
	m := newMachine(t, machineConfig{})
	shots := broker.NewShots(m.dev)
	const w, h = 61, 33
	for _, c := range []struct {
		name   string
		format virtiogpu.Format
		put    func([]byte, color.NRGBA)
		alpha  bool
	}{
		{"b8g8r8x8", virtiogpu.FormatB8G8R8X8, bgra, false},
		{"b8g8r8a8", virtiogpu.FormatB8G8R8A8, bgra, true},
		{"r8g8b8a8", virtiogpu.FormatR8G8B8A8, rgba, true},
		{"a8r8g8b8", virtiogpu.FormatA8R8G8B8, argb, true},
		{"x8r8g8b8", virtiogpu.FormatX8R8G8B8, argb, false},
	} {
		m.ok((&virtiogpu.ResourceCreate2D{ResourceID: 1, Format: c.format, Width: w, Height: h}).Append(nil))
		mem := m.attach(1, w*h*4)
		want := paintBlock(mem, w, h, w*4, 0, c.put, c.alpha)
		m.ok((&virtiogpu.TransferToHost2D{ResourceID: 1, R: rect(0, 0, w, h)}).Append(nil))
		before := m.dev.Status(false).BytesCopied
		s, err := shots.Resource(1)
		sameShot(t, c.name, s, err, want)
		if after := m.dev.Status(false).BytesCopied; after != before {
			t.Errorf("%s: the shot counts as %d copied bytes", c.name, after-before)
		}
		// A head that shows a part, opaque.
		m.scanout(1, 1, rect(5, 7, 30, 20))
		part := image.NewNRGBA(image.Rect(0, 0, 30, 20))
		for y := range 20 {
			for x := range 30 {
				px := want.NRGBAAt(5+x, 7+y)
				px.A = 255
				part.SetNRGBA(x, y, px)
			}
		}
		s, err = shots.Scanout(1)
		sameShot(t, c.name+" scanout", s, err, part)
		if s != nil && (s.Resource != 1 || s.Scanout != 1) {
			t.Errorf("%s: %d, %d", c.name, s.Resource, s.Scanout)
		}
		m.ok((&virtiogpu.ResourceUnref{ResourceID: 1}).Append(nil))
		mem.Free()
	}
}

// TestShotBlob: pixels in scattered guest pages, with stride and offset.
func TestShotBlob(t *testing.T) {
	m := modeB(t)
	shots := broker.NewShots(m.dev)
	const w, h, stride, offset = 30, 20, 256, 4096 + 64
	b, err := m.Pages.Scattered(16384)
	if err != nil {
		t.Fatal(err)
	}
	want := paintBlock(b, w, h, stride, offset, bgra, false)
	m.ok(createBlob(virtiogpu.CtrlHdr{}, 1, virtiogpu.BlobMemGuest, virtiogpu.BlobFlagMappable, 0, 16384, b))
	if _, err := shots.Resource(1); !errors.Is(err, broker.ErrNoPicture) || !strings.Contains(err.Error(), "no scanout showed") {
		t.Errorf("a blob that was never shown: %v", err)
	}
	m.ok(scanoutBlob(0, 1, w, h, stride, offset, virtiogpu.FormatB8G8R8X8))
	s, err := shots.Resource(1)
	sameShot(t, "blob", s, err, want)
	s, err = shots.Scanout(0)
	sameShot(t, "blob scanout", s, err, want)

	m.hostBlob(2, w*h*4)
	m.ok(mapBlob(2, 0))
	if err := m.FE.WriteWindow(4*w*3+4*5, []byte{7, 8, 9, 0}); err != nil {
		t.Fatal(err)
	}
	m.ok(scanoutBlob(1, 2, w, h, w*4, 0, virtiogpu.FormatB8G8R8X8))
	if s, err = shots.Scanout(1); err != nil {
		t.Fatal(err)
	}
	if got := decodeShot(t, s).NRGBAAt(5, 3); got != (color.NRGBA{9, 8, 7, 255}) {
		t.Errorf("pixel of mapped host memory %v", got)
	}
}

// TestShot3D reads back from the renderer.
func TestShot3D(t *testing.T) {
	m := newMachine(t, machineConfig{fake: virgltest.Config{
		OnSubmit: func(f *virgltest.Fake, _ uint32, cmds []byte) error {
			return f.Paint(1, func(p []byte) {
				for i := range p {
					p[i] = byte(i) + cmds[0]
				}
			})
		},
	}})
	shots := broker.NewShots(m.dev)
	m.createCtx(1)
	m.create3D(1, 8, 4)
	m.attachCtx(1, 1)
	m.ok(submit(ctxHdr(1), []byte{5, 0, 0, 0}))
	s, err := shots.Resource(1)
	if err != nil {
		t.Fatal(err)
	}
	img := decodeShot(t, s)
	for y := range 4 {
		for x := range 8 {
			at := byte(4 * (8*y + x))
			if got, want := img.NRGBAAt(x, y), (color.NRGBA{R: at + 7, G: at + 6, B: at + 5, A: at + 8}); got != want {
				t.Fatalf("pixel %d,%d is %v, want %v", x, y, got, want)
			}
		}
	}
	// A vertex buffer is no picture.
	m.ok((&virtiogpu.ResourceCreate3D{ResourceID: 2, Target: 0, Format: 64, Bind: 16, Width: 64, Height: 1, Depth: 1, ArraySize: 1}).Append(nil))
	if _, err := shots.Resource(2); !errors.Is(err, broker.ErrNoPicture) || !strings.Contains(err.Error(), "format 64 and target 0") {
		t.Errorf("a buffer: %v", err)
	}
	st := m.dev.Status(true)
	if len(st.Contexts) != 1 || st.Contexts[0].Submits != 1 {
		t.Errorf("contexts %+v", st.Contexts)
	}
	if c := st.ByCommand["SUBMIT_3D"]; c.Served != 1 || c.Failed != 0 {
		t.Errorf("by command %+v", st.ByCommand)
	}
}

// TestShotRequest: the control socket's words, and what it says to wrong ones.
func TestShotRequest(t *testing.T) {
	m := newMachine(t, machineConfig{})
	path := filepath.Join(t.TempDir(), "control.sock")
	c, err := broker.ListenControl(path, m.dev.Status, broker.NewShots(m.dev).Request())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	m.create2D(1, 16, 16)
	m.scanout(0, 1, rect(0, 0, 16, 16))
	var s broker.Shot
	for _, req := range []string{"shot scanout 0", "  shot   resource 1 "} {
		s = broker.Shot{}
		if err := broker.Ask(path, req, &s); err != nil || s.Width != 16 || len(s.PNG) == 0 || s.Resource != 1 {
			t.Errorf("%s: %+v, %v", req, s, err)
		}
	}
	for req, want := range map[string]string{
		"shot":                    "shot with 0 words",
		"shot scanout":            "shot with 1 words",
		"shot scanout 0 now":      "shot with 3 words",
		"shot scanout -1":         "want a number",
		"shot scanout 4294967296": "want a number",
		"shot scanout 16":         "scanout 16, limit 1",
		"shot scanout 1":          "scanout 1 is off",
		"shot resource 7":         "resource 7 does not exist",
		"shot window 1":           `shot of "window"`,
		"make tea":                "want one of: status; counters; shot scanout N",
	} {
		if err := broker.Ask(path, req, &s); !errors.Is(err, broker.ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", req, err, want)
		}
	}
}

package smoke

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

const surfaceless = "surfaceless"

// virglFormats are the formats that scanouts of guests have.
var virglFormats = []struct {
	name   string
	format uint32
	fourcc dmabuf.Fourcc // what the guest calls it
}{
	{"B8G8R8X8", virglcmd.FormatB8G8R8X8, dmabuf.XRGB8888},
	{"B8G8R8A8", virglcmd.FormatB8G8R8A8, dmabuf.ARGB8888},
	{"R8G8B8X8", virglcmd.FormatR8G8B8X8, dmabuf.XBGR8888},
	{"R8G8B8A8", virglcmd.FormatR8G8B8A8, dmabuf.ABGR8888},
}

// probeVirgl starts virglrenderer, draws as a guest does, and looks at the pixels: read
// back, and in the dma-buf of the texture.
func probeVirgl(_ context.Context, p *probe) {
	where := p.Node
	if where == "" {
		where = surfaceless
	}
	p.begin("virgl.init", where)
	v := &virglCheck{probe: p, where: where}
	var err error
	v.r, err = virgl.New(virgl.Config{RenderNode: p.Node, OnFence: func(_, id uint32) { v.fence = id }})
	if err != nil {
		p.end(badVirgl(p, err))
		for _, name := range []string{"virgl.capsets", "virgl.draw", "virgl.export"} {
			p.begin(name, where)
			p.end(Row{State: Skipped, Seen: "not tried", Cause: "virglrenderer does not start, see virgl.init"})
		}
		return
	}
	defer func() { _ = v.r.Close() }()
	info := v.r.Info()
	renderer, version := virgl.Driver()
	row := Row{State: OK, Seen: fmt.Sprintf("%s, OpenGL %s on %s", info.Library, version, renderer)}
	if software(renderer) {
		row.State, row.Cause = Degraded, "OpenGL is rendered by the CPU"
		row.Fix = "a GPU with a kernel driver and its Mesa driver, and --render-node"
		if unixEnv("LIBGL_ALWAYS_SOFTWARE") {
			row.Fix = "unset LIBGL_ALWAYS_SOFTWARE, which asks for it"
		}
	} else {
		p.found(findings{GPU: true})
	}
	p.end(row)
	p.begin("virgl.capsets", where)
	p.end(v.capsets())
	p.begin("virgl.draw", where)
	row = v.draw()
	if row.State == OK {
		p.found(findings{Virgl: true})
	}
	p.end(row)
	p.begin("virgl.export", where)
	p.end(v.export())
}

// software reports whether a GL_RENDERER is the CPU.
func software(renderer string) bool {
	return strings.HasPrefix(renderer, "llvmpipe") || strings.HasPrefix(renderer, "softpipe")
}

func unixEnv(name string) bool { v, ok := unix.Getenv(name); return ok && v != "" && v != "0" }

// badVirgl says why there is no renderer. What fails on a node may work without one.
func badVirgl(p *probe, err error) Row {
	r := Row{State: Failed, Needed: p.Needed, Seen: "guests get no 3D on it", Cause: err.Error(),
		Fix: "sudo apt install libegl1 libgl1-mesa-dri"}
	switch {
	case errors.Is(err, virgl.ErrLibrary):
		r.Seen, r.Fix = "guests get no 3D: a library is missing", "sudo apt install libvirglrenderer1 libegl1 libgl1 libgl1-mesa-dri"
	case p.Software:
		r.State = Degraded
	}
	return r
}

type virglCheck struct {
	*probe
	r     virgl.Renderer
	where string
	fence uint32 // newest that signalled
	made  uint32
}

func (v *virglCheck) capsets() Row {
	var names []string
	for _, c := range v.r.Info().Capsets {
		blob := make([]byte, c.MaxSize)
		if err := v.r.FillCapset(c.ID, c.MaxVersion, blob); err != nil {
			return Row{State: Failed, Seen: fmt.Sprintf("capset %d cannot be read", c.ID), Cause: err.Error(), Fix: "a newer libvirglrenderer1"}
		}
		if !slices.ContainsFunc(blob, func(b byte) bool { return b != 0 }) {
			return Row{State: Failed, Seen: fmt.Sprintf("capset %d is empty", c.ID), Cause: "the library knows no capabilities of its GL driver", Fix: "a newer libvirglrenderer1 and Mesa"}
		}
		name := map[uint32]string{virgl.CapsetVirgl: "virgl", virgl.CapsetVirgl2: "virgl2"}[c.ID]
		names = append(names, fmt.Sprintf("%s version %d (%d bytes)", name, c.MaxVersion, c.MaxSize))
	}
	if len(names) == 0 {
		return Row{State: Failed, Seen: "none", Cause: "the library offers no capability set, so guests use no 3D", Fix: "a newer libvirglrenderer1"}
	}
	return Row{State: OK, Seen: strings.Join(names, ", ")}
}

// Resource and context ids of the probe.
const (
	probeContext  = 1
	probeVertices = 100
)

// The colours that the picture runs between, left to right, red, green, blue.
var (
	leftColor  = [4]float32{1, 0.25, 0, 1}
	rightColor = [4]float32{0, 0.25, 1, 1}
)

// wantPixel is the colour of a column, 0 to 255.
func wantPixel(x int) [3]float64 {
	t := (float64(x) + 0.5) / probeW
	var out [3]float64
	for i := range out {
		out[i] = 255 * (float64(leftColor[i])*(1-t) + float64(rightColor[i])*t)
	}
	return out
}

// draw lets a guest's command stream draw a gradient into a texture of each format, and
// reads it back.
func (v *virglCheck) draw() Row {
	bad := func(err error) Row {
		return Row{State: Failed, Seen: "a command stream does not draw what it should", Cause: err.Error(), Fix: "a newer Mesa and libvirglrenderer1"}
	}
	begun := time.Now()
	if err := v.r.CreateContext(probeContext, 0, "smoke"); err != nil {
		return bad(err)
	}
	if err := v.vertices(); err != nil {
		return bad(err)
	}
	for i, f := range virglFormats {
		if err := v.drawFormat(uint32(i+1), f.format); err != nil {
			return bad(fmt.Errorf("%s: %w", f.name, err))
		}
		pixels := make([]byte, probeW*probeH*4)
		if err := v.r.ReadPixels(uint32(i+1), 0, 0, probeW, probeH, probeW*4, pixels); err != nil {
			return bad(err)
		}
		if err := compareGradient(pixels, probeW*4, f.fourcc); err != nil {
			return bad(fmt.Errorf("read back as %s: %w", f.name, err))
		}
	}
	return Row{State: OK, Seen: fmt.Sprintf("%d pictures of %dx%d drawn with shaders, fenced, read back: every pixel right (%d ms)",
		len(virglFormats), probeW, probeH, time.Since(begun).Milliseconds())}
}

// vertices makes a vertex buffer with a quad over everything.
func (v *virglCheck) vertices() error {
	quad := virglcmd.AppendVertices(nil, virglcmd.Quad(leftColor, rightColor)...)
	err := v.r.CreateResource(&virgl.ResourceArgs{ID: probeVertices, Target: virglcmd.TargetBuffer, Format: virglcmd.FormatR8,
		Bind: virglcmd.BindVertexBuffer, Width: uint32(len(quad)), Height: 1, Depth: 1, ArraySize: 1})
	if err != nil {
		return err
	}
	v.r.AttachResource(probeContext, probeVertices)
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	copy(mem, quad)
	if err := v.r.AttachBacking(probeVertices, [][]byte{mem}); err != nil {
		return err
	}
	return v.r.TransferToHost(&virgl.Transfer{Resource: probeVertices, Ctx: probeContext,
		Box: virgl.Box{W: uint32(len(quad)), H: 1, D: 1}})
}

func (v *virglCheck) drawFormat(id, format uint32) error {
	err := v.r.CreateResource(&virgl.ResourceArgs{ID: id, Target: virglcmd.TargetTexture2D, Format: format,
		Bind: virglcmd.BindRenderTarget | virglcmd.BindSamplerView, Width: probeW, Height: probeH, Depth: 1, ArraySize: 1})
	if err != nil {
		return err
	}
	v.r.AttachResource(probeContext, id)
	var b virglcmd.Builder
	b.Pipeline(virglcmd.HandlesFrom(100*id), id, format, probeW, probeH, probeVertices, virglcmd.FragmentShader)
	b.Draw(virglcmd.TriangleStrip, 0, 4)
	if err := v.r.Submit(probeContext, b.Bytes()); err != nil {
		return err
	}
	v.made++
	if err := v.r.CreateFence(probeContext, v.made); err != nil {
		return err
	}
	return v.wait()
}

// fenceTime bounds the wait for a picture.
const fenceTime = 20 * time.Second

func (v *virglCheck) wait() error {
	for end := time.Now().Add(fenceTime); v.fence != v.made; {
		if time.Now().After(end) {
			return fmt.Errorf("the fence behind a picture did not signal in %v", fenceTime)
		}
		if fd := v.r.PollFD(); fd >= 0 {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10)
		}
		v.r.Poll()
	}
	return nil
}

// compareGradient checks every pixel of the drawn picture. Its rows are all the same.
func compareGradient(pixels []byte, stride int, f dmabuf.Fourcc) error {
	order, ok := map[dmabuf.Fourcc][3]int{dmabuf.XRGB8888: {2, 1, 0}, dmabuf.XBGR8888: {0, 1, 2}}[f.Opaque()]
	if !ok {
		return fmt.Errorf("it came out as %v, which this check cannot read", f)
	}
	for x := range probeW {
		want := wantPixel(x)
		for y := range probeH {
			px := pixels[y*stride+4*x:]
			for c := range want {
				if math.Abs(float64(px[order[c]])-want[c]) > 2 {
					return fmt.Errorf("pixel %d,%d is %v, drawn was %.0f (%v)", x, y, px[:4], want, f)
				}
			}
		}
	}
	return nil
}

// export turns the textures into dma-bufs and looks at their memory.
func (v *virglCheck) export() Row {
	var items []Item
	var outs []Layout
	var errs []error
	for i, f := range virglFormats {
		l, how, err := v.exportOne(uint32(i + 1))
		if err != nil {
			items = append(items, Item{Name: f.name, State: Degraded, Seen: err.Error()})
			errs = append(errs, err)
			continue
		}
		items = append(items, Item{Name: f.name, State: OK, Seen: l.String() + how})
		if !slices.Contains(outs, l) {
			outs = append(outs, l)
		}
	}
	v.found(findings{Exports: outs})
	r := Row{State: OK, Items: items, Seen: fmt.Sprintf("%d of %d textures become dma-bufs, as %s", len(virglFormats)-len(errs), len(virglFormats), layouts(outs))}
	if len(errs) == 0 {
		return r
	}
	r.State, r.Cause = Degraded, errs[0].Error()
	if len(outs) == 0 {
		r.Seen = "no texture becomes a dma-buf: frames are read back and copied"
		if !errors.Is(errs[0], virgl.ErrNotSupported) {
			r.State = Failed
		}
	}
	renderer, _ := virgl.Driver()
	r.Fix = "a newer Mesa and libvirglrenderer1"
	if software(renderer) {
		r.Fix = "llvmpipe exports textures from Mesa 24.2 on, with /dev/udmabuf (sudo modprobe udmabuf)"
	}
	return r
}

// exportOne exports one texture and compares what the dma-buf holds.
func (v *virglCheck) exportOne(id uint32) (l Layout, how string, err error) {
	buf, err := v.r.Export(id)
	if err != nil {
		return l, "", err
	}
	defer buf.Release()
	l = Layout{buf.Fourcc, buf.Modifier}
	if buf.Modifier != dmabuf.ModLinear {
		return l, ", tiled: pixels not compared", nil
	}
	mem, done, err := buf.CPURead()
	if err != nil {
		return l, ", cannot be mapped: pixels not compared", nil //nolint:nilerr // a driver may share memory that the CPU cannot see
	}
	defer done()
	p := buf.Planes[0]
	if err := compareGradient(mem[p.Offset:], int(p.Stride), buf.Fourcc); err != nil {
		return l, "", fmt.Errorf("the dma-buf of resource %d: %w", id, err)
	}
	return l, ", every pixel right", nil
}

func layouts(ls []Layout) string {
	var out []string
	for _, l := range ls {
		out = append(out, l.String())
	}
	return strings.Join(out, ", ")
}

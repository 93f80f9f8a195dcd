package smoke

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/gbm"
	"github.com/gpubroker/gpubroker/virgl/glread"
)

// probeFormats are what scanouts, cursors and video have.
var probeFormats = []dmabuf.Fourcc{
	dmabuf.XRGB8888, dmabuf.ARGB8888, dmabuf.XBGR8888, dmabuf.ABGR8888, dmabuf.XRGB2101010, dmabuf.RGB565, dmabuf.NV12,
}

// Picture sizes: no power of two, so that strides show.
const (
	probeW = 200
	probeH = 120
)

const packageGBM = "sudo apt install libgbm1 libgl1-mesa-dri"

// probeGBM allocates buffers of every kind on a node and takes one around: out as a
// dma-buf, and into a second device.
func probeGBM(_ context.Context, p *probe) {
	p.begin("gbm.allocate", p.Node)
	dev, err := gbm.OpenDevice(p.Node)
	if err != nil {
		r := Row{State: Failed, Seen: "no allocator: 2D pictures live in shared memory", Cause: err.Error(), Fix: packageGBM}
		if !errors.Is(err, gbm.ErrLibrary) {
			r.Fix = "a Mesa driver for this GPU (Debian: libgl1-mesa-dri)"
		}
		p.end(softer(p, r))
		p.begin("gbm.roundtrip", p.Node)
		p.end(Row{State: Skipped, Seen: "not tried", Cause: "GBM does not start on " + p.Node})
		return
	}
	defer func() { _ = dev.Close() }()
	p.end(p.allocate(dev))
	p.begin("gbm.roundtrip", p.Node)
	if err := roundtrip(dev); err != nil {
		p.end(softer(p, Row{State: Failed, Seen: "a buffer does not come through unchanged", Cause: err.Error(), Fix: packageGBM}))
		return
	}
	p.end(Row{State: OK, Seen: fmt.Sprintf("%dx%d drawn, exported as a dma-buf, imported by a second device: the same pixels three times", probeW, probeH)})
}

// softer lets what a driver for tests cannot do count less.
func softer(p *probe, r Row) Row {
	if p.Software && r.State == Failed {
		r.State = Degraded
	}
	return r
}

// maxModifiers bounds the compositor's modifiers that are tried for a format.
const maxModifiers = 64

// allocate tries every format: linear, as the driver likes it, and with each modifier
// that the compositor takes and the driver knows.
func (p *probe) allocate(dev *gbm.Device) Row {
	var items []Item
	made, linear := 0, false
	try := func(name string, q gbm.Request) bool {
		q.Width, q.Height = probeW, probeH
		bo, err := dev.Allocate(q)
		if err != nil {
			items = append(items, Item{Name: name, State: Degraded, Seen: err.Error()})
			return false
		}
		items = append(items, Item{Name: name, State: OK, Seen: bo.Modifier.String()})
		_ = bo.Close()
		made++
		return true
	}
	for _, f := range probeFormats {
		ok := try(f.String()+" linear", gbm.Request{Fourcc: f, Use: gbm.UseLinear | gbm.UseScanout}) ||
			try(f.String()+" linear, dumb", gbm.Request{Fourcc: f, Use: gbm.UseWrite | gbm.UseScanout})
		linear = linear || ok && f == dmabuf.XRGB8888
		try(f.String()+" for rendering", gbm.Request{Fourcc: f, Use: gbm.UseRendering})
		tried := 0
		for _, l := range p.Layouts {
			n, err := dev.ModifierPlanes(l.Fourcc, l.Modifier)
			if l.Fourcc != f || l.Modifier == dmabuf.ModInvalid || err != nil || n == 0 || tried == maxModifiers {
				continue
			}
			tried++
			try(l.String(), gbm.Request{Fourcc: f, Modifiers: []dmabuf.Modifier{l.Modifier}})
		}
	}
	r := Row{State: OK, Seen: fmt.Sprintf("back-end %s: %d of %d ways to allocate work", dev.Backend(), made, len(items)), Items: items}
	switch {
	case made == 0:
		r.State, r.Cause, r.Fix = Failed, items[0].Seen, "another --render-node, or a Mesa driver for this one (Debian: libgl1-mesa-dri)"
	case !linear:
		r.State, r.Cause = Degraded, "no linear XRGB8888, so 2D pictures live in shared memory: "+failure(items)
		r.Fix = "another --render-node, or a newer Mesa"
	}
	return softer(p, r)
}

func failure(items []Item) string {
	for _, it := range items {
		if it.State != OK {
			return it.Seen
		}
	}
	return ""
}

// linearBO allocates a linear buffer in the first way that the driver has.
func linearBO(dev *gbm.Device) (*gbm.BO, error) {
	var errs []error
	for _, use := range []gbm.Use{gbm.UseLinear | gbm.UseRendering, gbm.UseLinear | gbm.UseScanout, gbm.UseWrite | gbm.UseScanout} {
		bo, err := dev.Allocate(gbm.Request{Width: probeW, Height: probeH, Fourcc: dmabuf.XRGB8888, Use: use})
		if err == nil {
			return bo, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func roundtrip(dev *gbm.Device) error {
	bo, err := linearBO(dev)
	if err != nil {
		return err
	}
	defer func() { _ = bo.Close() }()
	m, err := bo.Map(0, 0, probeW, probeH, gbm.ReadWrite)
	if err != nil {
		return err
	}
	for y := range probeH {
		for x := range probeW * 4 {
			m.Mem[y*int(m.Stride)+x] = pattern(y*probeW*4 + x)
		}
	}
	m.Unmap()
	buf, err := bo.Export()
	if err != nil {
		return err
	}
	defer buf.Release()
	mem, done, err := buf.CPURead()
	if err != nil {
		return err
	}
	err = comparePattern("the dma-buf", mem[buf.Planes[0].Offset:], buf.Planes[0].Stride)
	done()
	if err != nil {
		return err
	}
	other, err := gbm.OpenDevice(dev.Node())
	if err != nil {
		return err
	}
	defer func() { _ = other.Close() }()
	in, err := other.Import(buf, gbm.UseLinear)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	m, err = in.Map(0, 0, probeW, probeH, gbm.Read)
	if err != nil {
		return err
	}
	defer m.Unmap()
	return comparePattern("the imported buffer", m.Mem, m.Stride)
}

func comparePattern(what string, mem []byte, stride uint32) error {
	for y := range probeH {
		for x := range probeW * 4 {
			if got, want := mem[y*int(stride)+x], pattern(y*probeW*4+x); got != want {
				return fmt.Errorf("byte %d of row %d of %s is %#x, drawn was %#x", x, y, what, got, want)
			}
		}
	}
	return nil
}

// probeGL draws with OpenGL ES into a GBM buffer and looks at the dma-buf.
func probeGL(_ context.Context, p *probe) {
	p.begin("gl.draw", p.Node)
	if !glread.Built {
		p.end(Row{State: Skipped, Seen: "not tried: this gpubroker was built without cgo",
			Cause: "OpenGL comes from go-gl, which is cgo; nothing but this check needs it",
			Fix:   "sudo apt install gcc pkg-config libegl-dev && CGO_ENABLED=1 go build -tags egl ./cmd/gpubroker"})
		return
	}
	seen, err := drawGL(p.Node)
	if err != nil {
		p.end(softer(p, Row{State: Failed, Seen: "OpenGL does not draw into a GBM buffer", Cause: err.Error(),
			Fix: "sudo apt install libegl1 libgl1-mesa-dri libgbm1"}))
		return
	}
	p.end(Row{State: OK, Seen: seen})
}

func drawGL(node string) (string, error) {
	dev, err := gbm.OpenDevice(node)
	if err != nil {
		return "", err
	}
	defer func() { _ = dev.Close() }()
	bo, err := linearBO(dev)
	if err != nil {
		return "", err
	}
	defer func() { _ = bo.Close() }()
	buf, err := bo.Export()
	if err != nil {
		return "", err
	}
	defer buf.Release()
	gl, err := glread.New(node)
	if err != nil {
		var own error // a driver without EGL of its own: llvmpipe can import its buffers
		if gl, own = glread.New(""); own != nil {
			return "", errors.Join(err, own)
		}
	}
	defer func() { _ = gl.Close() }()
	if err := gl.Paint(buf); err != nil {
		return "", err
	}
	mem, done, err := buf.CPURead()
	if err != nil {
		return "", err
	}
	defer done()
	pl := buf.Planes[0]
	for y := range probeH {
		for x := range probeW {
			at := int(pl.Offset) + y*int(pl.Stride) + 4*x
			want := glread.Painted(x, y, probeW, probeH)
			got := [3]byte{mem[at+2], mem[at+1], mem[at]}
			if off(got[0], want.R) > 1 || off(got[1], want.G) > 1 || off(got[2], want.B) > 1 {
				return "", fmt.Errorf("pixel %d,%d of the dma-buf is %v, GL drew %v", x, y, got, want)
			}
		}
	}
	return fmt.Sprintf("%s drew %dx%d, every pixel of the dma-buf is right", strings.TrimSpace(gl.Renderer()), probeW, probeH), nil
}

func off(a, b byte) int { return max(int(a)-int(b), int(b)-int(a)) }

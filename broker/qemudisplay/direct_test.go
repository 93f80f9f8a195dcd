package qemudisplay_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/qemudisplay"
	"github.com/gpubroker/gpubroker/broker/qemudisplay/qemudisplaytest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

func TestDMABuf(t *testing.T) {
	const tiled = dmabuf.Modifier(1<<56 | 2)
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	if !r.s.Accepts(dmabuf.ABGR8888, tiled) || r.s.Accepts(dmabuf.RGB565, dmabuf.ModLinear) {
		t.Error("Accepts is wrong")
	}
	a := direct(t, 64, 48, dmabuf.ABGR8888, tiled, nil)
	b := direct(t, 64, 48, dmabuf.XRGB8888, dmabuf.ModInvalid, func(d *dmabuf.Desc) { d.YInvert = true })
	r.present(0, a, whole(a), display.Rect{W: 1, H: 1})
	r.updates(1)
	s := r.q.Scanout(0)
	if !s.DMABuf || !s.HasModifier || s.Modifier != uint64(tiled) || s.Fourcc != uint32(dmabuf.XBGR8888) ||
		s.FDStride != a.Planes[0].Stride || s.FDFlags != 1 || s.FDWidth != 64 || s.W != 64 || s.LastW != 64 || s.LastH != 48 {
		t.Errorf("scanout %+v", s)
	}
	var p [4]byte
	if err := r.q.ReadDMABuf(0, p[:], 4); err != nil || binary.LittleEndian.Uint32(p[:]) != pixel(1, 0, 0) {
		t.Errorf("descriptor reads % x, %v", p, err)
	}
	// The same buffer again is not imported again.
	for i := range 5 {
		r.present(0, a, whole(a), display.Rect{X: 7, Y: 8, W: 9, H: 10})
		r.updates(2 + i)
	}
	st := r.s.Stats()
	if s := r.q.Scanout(0); s.LastX != 7 || s.LastH != 10 || st.Imports.Load() != 1 || st.ImportsLive.Load() != 1 {
		t.Errorf("update %+v, imports %d, live %d", s, st.Imports.Load(), st.ImportsLive.Load())
	}
	if !a.Reading() {
		t.Error("the shown buffer is free to be drawn into")
	}
	r.present(0, b, whole(b), whole(b))
	r.updates(7)
	r.quiet(a)
	if s := r.q.Scanout(0); s.HasModifier || s.FDFlags != 0 || r.q.Count("DMABUF_SCANOUT") != 1 {
		t.Errorf("a buffer of unknown layout: %+v", s)
	}
	if st.FramesDMABuf.Load() != 7 || st.BytesCopied.Load() != 0 || st.Imports.Load() != 2 || st.ImportsLive.Load() != 1 {
		t.Errorf("frames %d, copied %d, imports %d, live %d", st.FramesDMABuf.Load(), st.BytesCopied.Load(), st.Imports.Load(), st.ImportsLive.Load())
	}
	r.s.Disable(0)
	r.quiet(b)
	r.q.Wait("blank", func() bool { return !r.q.Scanout(0).DMABuf })
	if st.ImportsLive.Load() != 0 {
		t.Errorf("%d imports live", st.ImportsLive.Load())
	}
}

// TestBackPressure holds the display's answer: nothing is sent meanwhile, the
// old buffer stays held, the newest frame comes next.
func TestBackPressure(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	bufs := make([]*dmabuf.Buffer, 4)
	for i := range bufs {
		bufs[i] = direct(t, 32, 32, dmabuf.XRGB8888, dmabuf.ModLinear, nil)
	}
	r.present(0, bufs[0], whole(bufs[0]), whole(bufs[0]))
	r.updates(1)
	r.q.Block(true)
	r.present(0, bufs[1], whole(bufs[1]), whole(bufs[1]))
	r.updates(2)
	for range 10 {
		r.present(0, bufs[2], whole(bufs[2]), whole(bufs[2]))
		r.s.MoveCursor(0, 5, 6)
		time.Sleep(time.Millisecond) // time enough to send it, if it were sent
	}
	r.present(0, bufs[3], whole(bufs[3]), whole(bufs[3]))
	r.quiet(bufs[2])
	if !bufs[0].Reading() || !bufs[1].Reading() || r.q.Scanout(0).Updates != 2 {
		t.Errorf("reading %v %v, %d updates", bufs[0].Reading(), bufs[1].Reading(), r.q.Scanout(0).Updates)
	}
	r.q.Finish()
	r.quiet(bufs[0])
	r.updates(3)
	r.q.Finish()
	r.quiet(bufs[1])
	if n := r.s.Stats().FramesSkipped.Load(); n != 10 {
		t.Errorf("%d frames skipped", n)
	}
	if n := r.q.Count("CURSOR_POS_HIDE"); n != 1 {
		t.Errorf("%d cursor messages for ten moves", n)
	}
}

// TestMixed goes from pixels to a dma-buf and back, the order that can abort QEMU.
func TestMixed(t *testing.T) {
	r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
	p := picture(t, 32, 32, dmabuf.XRGB8888)
	d := direct(t, 32, 32, dmabuf.XRGB8888, dmabuf.ModLinear, nil)
	for i := range 3 {
		r.present(0, p, whole(p), display.Rect{W: 1, H: 1})
		r.q.Wait("pixels", func() bool { return r.q.Scanout(0).Pixels != nil })
		r.want(0, p, whole(p))
		r.quiet(d)
		r.present(0, d, whole(d), whole(d))
		r.q.Wait("dma-buf", func() bool { return r.q.Scanout(0).DMABuf && r.s.Stats().FramesDMABuf.Load() == uint64(i+1) })
	}
}

func TestWhichTier(t *testing.T) {
	const tiled = dmabuf.Modifier(1<<56 | 2)
	for _, c := range []struct {
		name           string
		old            bool
		mode           qemudisplay.DMABuf
		linear, tiledM bool
	}{
		{"auto", false, qemudisplay.DMABufAuto, true, true},
		{"auto, old QEMU", true, qemudisplay.DMABufAuto, false, false},
		{"on, old QEMU", true, qemudisplay.DMABufOn, true, false},
		{"off", false, qemudisplay.DMABufOff, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, qemudisplaytest.Options{Old: c.old}, qemudisplay.Config{DMABuf: c.mode})
			if got := r.s.Accepts(dmabuf.XRGB8888, dmabuf.ModLinear); got != c.linear {
				t.Errorf("linear: %v", got)
			}
			if got := r.s.Accepts(dmabuf.XRGB8888, tiled); got != c.tiledM {
				t.Errorf("tiled: %v", got)
			}
			if c.old && r.s.EDID(0) != nil {
				t.Error("an EDID from a QEMU without")
			}
			if !c.linear {
				return
			}
			b := direct(t, 16, 16, dmabuf.XRGB8888, dmabuf.ModLinear, nil)
			r.present(0, b, whole(b), whole(b))
			r.updates(1)
			if s := r.q.Scanout(0); !s.DMABuf || s.HasModifier == c.old {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestRejected presents what the format allows and the protocol does not.
func TestRejected(t *testing.T) {
	const tiled = dmabuf.Modifier(1<<56 | 2)
	for _, c := range []struct {
		name string
		src  display.Rect
		edit func(*dmabuf.Desc)
	}{
		{"part", display.Rect{X: 8, W: 8, H: 16}, nil},
		{"offset", display.Rect{W: 16, H: 8}, func(d *dmabuf.Desc) { d.Planes[0].Offset = 256; d.Height = 8 }},
		{"part of an upside-down buffer", display.Rect{W: 16, H: 8}, func(d *dmabuf.Desc) { d.YInvert = true }},
		{"two planes", display.Rect{W: 16, H: 16}, func(d *dmabuf.Desc) {
			fd, err := d.Planes[0].FD.Dup()
			if err != nil {
				panic(err)
			}
			d.Planes = append(d.Planes, dmabuf.Plane{FD: fd, Stride: 64})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, qemudisplaytest.Options{}, qemudisplay.Config{})
			b := direct(t, 16, 16, dmabuf.XRGB8888, tiled, c.edit)
			r.present(0, b, c.src, c.src)
			r.q.Wait("refresh", func() bool { return r.ev.refresh.Load() == 2 })
			r.quiet(b)
			if r.s.Accepts(dmabuf.XRGB8888, tiled) || !r.s.Accepts(dmabuf.XRGB8888, dmabuf.ModLinear) {
				t.Error("Accepts did not learn")
			}
			r.present(0, b, c.src, c.src)
			r.q.Wait("skip", func() bool { return r.s.Stats().FramesSkipped.Load() == 2 })
			if r.ev.refresh.Load() != 2 {
				t.Error("asked for a refresh twice")
			}
			r.attach()
			if !r.s.Accepts(dmabuf.XRGB8888, tiled) {
				t.Error("a new display inherits the refusal")
			}
		})
	}
}

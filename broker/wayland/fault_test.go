package wayland_test

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

var tiled = dmabuf.Modifier(1<<56 | 9)

func TestFormats(t *testing.T) {
	x, a, ab := dmabuf.XRGB8888, dmabuf.ARGB8888, dmabuf.ABGR8888
	lin, inv := dmabuf.ModLinear, dmabuf.ModInvalid
	offered := []waylandtest.Layout{{Fourcc: x, Modifier: lin}, {Fourcc: x, Modifier: tiled}, {Fourcc: ab, Modifier: lin}, {Fourcc: a, Modifier: inv}}
	for _, version := range []uint32{0, 2, 3, 4, 5} {
		c, s, ev := connect(t, waylandtest.Config{DMABuf: version, Layouts: offered})
		modifiers := version >= 3
		for _, q := range []struct {
			f    dmabuf.Fourcc
			m    dmabuf.Modifier
			want bool
		}{
			{x, lin, modifiers},
			{a, lin, modifiers}, // as its twin
			{a, tiled, modifiers},
			{ab, lin, modifiers}, // as it is
			{dmabuf.XBGR8888, lin, false},
			{ab, tiled, false},
			{a, inv, version > 0}, // in version 2 every format implies it
			{x, inv, version == 2},
			{dmabuf.NV12, lin, false},
		} {
			if got := s.Accepts(q.f, q.m); got != q.want {
				t.Errorf("version %d: Accepts(%v, %v) = %v, want %v", version, q.f, q.m, got, q.want)
			}
		}
		c.Offer([]waylandtest.Layout{{Fourcc: dmabuf.NV12, Modifier: lin}})
		if version >= 4 {
			waylandtest.Eventually(t, "new formats", func() bool {
				return s.Accepts(dmabuf.NV12, lin) && !s.Accepts(x, lin) && ev.refreshes.Load() == 1
			})
		}
		closeSink(t, s)
	}
}

func TestDMABuf(t *testing.T) {
	twin := waylandtest.Layout{Fourcc: dmabuf.XRGB8888, Modifier: tiled}
	alpha := waylandtest.Layout{Fourcc: dmabuf.ABGR8888, Modifier: tiled}
	c, s, _ := connect(t, waylandtest.Config{DMABuf: 4, Layouts: []waylandtest.Layout{twin, alpha}})
	for i, b := range []*dmabuf.Buffer{
		fakeDMABuf(t, dmabuf.ARGB8888, tiled, 2),
		fakeDMABuf(t, dmabuf.ABGR8888, tiled, 1),
	} {
		s.Present(frameOf(b))
		k := c.WaitFrames(t, i+1)[i]
		if want := []waylandtest.Layout{twin, alpha}[i]; k.Buffer.Layout != want || k.Buffer.Planes != len(b.Planes) {
			t.Errorf("%v came as %v with %d planes, want %v", b, k.Buffer.Layout, k.Buffer.Planes, want)
		}
		if k.Opaque != whole(b) {
			t.Errorf("opaque region %v", k.Opaque)
		}
	}
	st := s.Stats()
	if st.FramesDMABuf.Load() != 2 || st.FramesShm.Load() != 0 || st.BytesCopied.Load() != 0 || st.Imports.Load() != 2 || st.ImportsLive.Load() != 2 {
		t.Errorf("dma-buf frames %d, shm %d, copied %d, imports %d, live %d", st.FramesDMABuf.Load(), st.FramesShm.Load(),
			st.BytesCopied.Load(), st.Imports.Load(), st.ImportsLive.Load())
	}
}

// TestImportFails: the layout is not accepted any more, the broker is asked for
// another picture, and shared memory still works.
func TestImportFails(t *testing.T) {
	l := waylandtest.Layout{Fourcc: dmabuf.XRGB8888, Modifier: tiled}
	other := waylandtest.Layout{Fourcc: dmabuf.XRGB8888, Modifier: dmabuf.ModLinear}
	c, s, ev := connect(t, waylandtest.Config{DMABuf: 3, Layouts: []waylandtest.Layout{l, other},
		OnImport: func(x waylandtest.Layout) waylandtest.Answer {
			if x == l {
				return waylandtest.Failed
			}
			return waylandtest.Created
		}})
	b := fakeDMABuf(t, l.Fourcc, l.Modifier, 1)
	s.Present(frameOf(b))
	waylandtest.Eventually(t, "the layout is refused", func() bool {
		return !s.Accepts(l.Fourcc, l.Modifier) && ev.refreshes.Load() == 1 && !b.Reading() && b.References() == 1
	})
	if !s.Accepts(other.Fourcc, other.Modifier) {
		t.Error("the other layout is refused too")
	}
	sm := shm(t, 4)
	s.Present(frameOf(sm))
	c.WaitFrames(t, 1)
	s.Present(frameOf(fakeDMABuf(t, other.Fourcc, other.Modifier, 1)))
	c.WaitFrames(t, 2)
	if n := ev.refreshes.Load(); n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
	closeSink(t, s)
}

// TestImportNeverAnswered: other frames go on, waiting imports are few, and
// nothing is read for frames that were superseded.
func TestImportNeverAnswered(t *testing.T) {
	l := waylandtest.Layout{Fourcc: dmabuf.XRGB8888, Modifier: dmabuf.ModLinear}
	var imports atomic.Int64
	c, s, _ := connect(t, waylandtest.Config{DMABuf: 3, Layouts: []waylandtest.Layout{l},
		OnImport: func(waylandtest.Layout) waylandtest.Answer { imports.Add(1); return waylandtest.Never }})
	var bufs []*dmabuf.Buffer
	for i := range 10 {
		b := fakeDMABuf(t, l.Fourcc, l.Modifier, 1)
		bufs = append(bufs, b)
		s.Present(frameOf(b))
		waylandtest.Eventually(t, "an import, and the older frame is let go", func() bool {
			return imports.Load() >= min(int64(i)+1, 4) && (i == 0 || !bufs[i-1].Reading())
		})
	}
	sm := shm(t, 4)
	s.Present(frameOf(sm))
	c.WaitFrames(t, 1)
	closeSink(t, s)
	c.Close()
	if n := imports.Load(); n != 4 {
		t.Errorf("%d imports asked for, want 4", n)
	}
	for _, b := range bufs {
		if b.References() != 1 {
			t.Errorf("%v: %d references left", b, b.References())
		}
	}
}

// TestImportKillsConnection: the layout that ended a connection is not tried again.
func TestImportKillsConnection(t *testing.T) {
	l := waylandtest.Layout{Fourcc: dmabuf.XRGB8888, Modifier: tiled}
	c, s, ev := connect(t, waylandtest.Config{DMABuf: 3, Layouts: []waylandtest.Layout{l},
		OnImport: func(waylandtest.Layout) waylandtest.Answer { return waylandtest.KillsConn }})
	b := fakeDMABuf(t, l.Fourcc, l.Modifier, 1)
	s.Present(frameOf(b))
	waylandtest.Eventually(t, "the sink is back without the layout", func() bool {
		return s.Stats().Reconnects.Load() == 1 && !s.Accepts(l.Fourcc, l.Modifier) && ev.refreshes.Load() == 1
	})
	sm := shm(t, 4)
	s.Present(frameOf(sm))
	c.WaitFrames(t, 1)
	if n := c.Accepted(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
	closeSink(t, s)
}

// TestCompositorDies takes the connection away again and again: the window comes
// back by itself, nothing is read in between, no descriptor is lost.
func TestCompositorDies(t *testing.T) {
	l := waylandtest.Layout{Fourcc: dmabuf.XRGB8888, Modifier: tiled}
	b := shm(t, 1)
	d := fakeDMABuf(t, l.Fourcc, l.Modifier, 1)
	c, s, ev := connect(t, waylandtest.Config{DMABuf: 5, Layouts: []waylandtest.Layout{l}, HoldReleases: true, Seat: true})
	s.ShowCursor(cursor16())
	before := -1
	for i := range 5 {
		f := frameOf(b)
		if i%2 == 1 {
			f = frameOf(d)
		}
		s.Present(f)
		waylandtest.Eventually(t, "the frame is shown with the cursor", func() bool {
			return len(c.Frames()) > 0 && f.Buffer.Reading() && len(last(c).Children) == 1
		})
		frames := len(c.Frames())
		c.Kill()
		waylandtest.Eventually(t, "the window is back", func() bool {
			return s.Stats().Reconnects.Load() == uint64(i+1) && len(c.Frames()) > frames && len(last(c).Children) == 1 && f.Buffer.Reading()
		})
		if n := s.Stats().ImportsLive.Load(); n != 1 {
			t.Errorf("%d imports live after a reconnect, want 1", n)
		}
		if before < 0 {
			before = fdtest.Count(t)
		} else if n := fdtest.Count(t); n > before+4 {
			t.Errorf("%d descriptors open after reconnect %d, %d after the first", n, i, before)
		}
	}
	if n := ev.refreshes.Load(); n != 5 {
		t.Errorf("%d refreshes, want 5", n)
	}
	closeSink(t, s)
	if d.References() != 1 {
		t.Errorf("%v: %d references left", d, d.References())
	}
}

// TestGarbage sends what no compositor may: the sink drops the connection and
// makes a new one.
func TestGarbage(t *testing.T) {
	msg := func(id uint32, opcode, size uint16, body ...uint32) []byte {
		b := binary.LittleEndian.AppendUint32(nil, id)
		b = binary.LittleEndian.AppendUint32(b, uint32(size)<<16|uint32(opcode))
		for _, w := range body {
			b = binary.LittleEndian.AppendUint32(b, w)
		}
		return b
	}
	for name, raw := range map[string][]byte{
		"size 0":               msg(1, 0, 0),
		"size 4":               msg(1, 0, 4),
		"size 10":              msg(1, 0, 10),
		"giant":                append(msg(1, 0, 0xfffc), make([]byte, 0xfffc)...),
		"object 0":             msg(0, 0, 8),
		"unknown object":       msg(4000, 0, 8),
		"unknown server id":    msg(uint32(wire.ServerIDs)+5, 0, 8),
		"unknown opcode":       msg(1, 9, 8),
		"short delete_id":      msg(1, 1, 8),
		"long delete_id":       msg(1, 1, 16, 2, 3),
		"delete_id of display": msg(1, 1, 12, 1),
		"delete_id of nothing": msg(1, 1, 12, 0xfffffff0),
		"string too long":      msg(2, 0, 20, 50, 0xffffffff, 1),
		"string without NUL":   msg(2, 0, 24, 50, 4, 0x41414141, 1),
		"null string":          msg(2, 0, 20, 50, 0, 1),
		"error":                msg(1, 0, 28, 1, 3, 5, 0x65707865, 0),
		"text":                 []byte("HTTP/1.1 400 Bad Request\r\n\r\n12"),
	} {
		t.Run(name, func(t *testing.T) {
			b := shm(t, 1)
			c, s, _ := connect(t, waylandtest.Config{})
			s.Present(frameOf(b))
			c.WaitFrames(t, 1)
			c.SendRaw(raw)
			waylandtest.Eventually(t, "the sink is back", func() bool { return s.Stats().Reconnects.Load() == 1 && len(c.Frames()) == 2 })
			closeSink(t, s)
		})
	}
}

package qemudisplay_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/qemudisplay"
	"github.com/gpubroker/gpubroker/broker/qemudisplay/qemudisplaytest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/shmfallback"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// events counts what the sink tells.
type events struct {
	refresh atomic.Int64
	modes   atomic.Int64
	mu      sync.Mutex
	heads   []int // guarded by mu
}

func (e *events) Refresh()          { e.refresh.Add(1) }
func (e *events) Shown(int, uint64) {}
func (e *events) Closed(int)        {}

func (e *events) ModeChanged(head int) {
	e.modes.Add(1)
	e.mu.Lock()
	e.heads = append(e.heads, head)
	e.mu.Unlock()
}

// rig is a sink attached to a fake QEMU.
type rig struct {
	t    *testing.T
	q    *qemudisplaytest.QEMU
	s    *qemudisplay.Sink
	ev   *events
	logs *observer.ObservedLogs
}

func newRig(t *testing.T, o qemudisplaytest.Options, c qemudisplay.Config) *rig {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	r := &rig{t: t, q: qemudisplaytest.New(t, o), ev: &events{}, logs: logs}
	c.Log, c.Events = zap.New(core), r.ev
	r.s = qemudisplay.New(c)
	t.Cleanup(func() {
		if err := r.s.Close(); err != nil {
			t.Error(err)
		}
	})
	r.attach()
	return r
}

func (r *rig) attach() {
	before := r.ev.refresh.Load()
	r.s.Attach(r.q.Connect())
	r.q.Wait("refresh", func() bool { return r.ev.refresh.Load() > before })
}

// picture makes a shared buffer whose pixels are all different.
func picture(t *testing.T, w, h uint32, f dmabuf.Fourcc) *dmabuf.Buffer {
	t.Helper()
	b, err := shmfallback.Alloc(w, h, f, "test picture")
	if err != nil {
		t.Fatal(err)
	}
	paint(b, 0)
	t.Cleanup(b.Release)
	return b
}

func paint(b *dmabuf.Buffer, seed uint32) {
	for y := range b.Height {
		for x := range b.Width {
			binary.LittleEndian.PutUint32(b.Mem[y*b.Planes[0].Stride+x*4:], pixel(x, y, seed))
		}
	}
}

func pixel(x, y, seed uint32) uint32 { return (x*7919 + y*104729 + seed*15485863) * 2654435761 }

// flipped makes a buffer like b whose rows go from the bottom to the top.
func flipped(t *testing.T, b *dmabuf.Buffer) *dmabuf.Buffer {
	t.Helper()
	fd, err := b.Planes[0].FD.Dup()
	if err != nil {
		t.Fatal(err)
	}
	f, err := dmabuf.New(dmabuf.Desc{Kind: b.Kind, Width: b.Width, Height: b.Height, Fourcc: b.Fourcc, Modifier: b.Modifier,
		Planes: []dmabuf.Plane{{FD: fd, Stride: b.Planes[0].Stride}}, YInvert: true, Mem: b.Mem})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Release)
	return f
}

// direct makes a buffer that says it is a dma-buf; its memory is a memfd.
func direct(t *testing.T, w, h uint32, f dmabuf.Fourcc, m dmabuf.Modifier, edit func(*dmabuf.Desc)) *dmabuf.Buffer {
	t.Helper()
	src := picture(t, w, h, dmabuf.XRGB8888)
	fd, err := src.Planes[0].FD.Dup()
	if err != nil {
		t.Fatal(err)
	}
	d := dmabuf.Desc{Kind: dmabuf.KindDMABuf, Width: w, Height: h, Fourcc: f, Modifier: m,
		Planes: []dmabuf.Plane{{FD: fd, Stride: src.Planes[0].Stride}}, Origin: "test"}
	if edit != nil {
		edit(&d)
	}
	b, err := dmabuf.New(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Release)
	return b
}

func (r *rig) present(head int, b *dmabuf.Buffer, src, damage display.Rect) {
	r.s.Present(&display.Frame{Head: head, Buffer: b, Source: src, Damage: damage, Opaque: true, FlushedAt: 1})
}

func whole(b *dmabuf.Buffer) display.Rect { return display.Rect{W: b.Width, H: b.Height} }

// want compares what a head shows with a part of a picture.
func (r *rig) want(head int, b *dmabuf.Buffer, src display.Rect) {
	r.t.Helper()
	if why := r.differs(head, b, src); why != "" {
		r.t.Fatal(why)
	}
}

// differs says how what a head shows is not that part of a picture; empty if it is.
func (r *rig) differs(head int, b *dmabuf.Buffer, src display.Rect) string {
	s := r.q.Scanout(head)
	if s.W != src.W || s.H != src.H || s.DMABuf {
		return fmt.Sprintf("head %d shows %dx%d, dma-buf %t, want %dx%d", head, s.W, s.H, s.DMABuf, src.W, src.H)
	}
	for y := range src.H {
		row := src.Y + y
		if b.YInvert {
			row = b.Height - 1 - row
		}
		p := b.Mem[row*b.Planes[0].Stride+src.X*4:][:src.W*4]
		if got := s.Pixels[y*src.W*4:][:src.W*4]; !bytes.Equal(got, p) {
			return fmt.Sprintf("head %d row %d: % x…, want % x…", head, y, got[:8], p[:8])
		}
	}
	return ""
}

func (r *rig) updates(n int) {
	r.t.Helper()
	r.q.Wait("update", func() bool { return r.q.Scanout(0).Updates >= n })
}

// quiet waits until nobody holds the buffer for reading.
func (r *rig) quiet(b *dmabuf.Buffer) {
	r.t.Helper()
	r.q.Wait("end of reads", func() bool { return !b.Reading() })
}

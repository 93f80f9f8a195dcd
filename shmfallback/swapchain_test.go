package shmfallback

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/gpubroker/gpubroker/dmabuf"
)

func TestSwapchain(t *testing.T) {
	s, err := AllocSwapchain(2, 100, 50, dmabuf.XRGB8888, "chain")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	idle := 0
	s.OnIdle(func(*dmabuf.Buffer) { idle++ })

	a, missed := s.Acquire()
	if missed != (Rect{0, 0, 100, 50}) {
		t.Fatalf("a new buffer missed %v", missed)
	}
	a.BeginRead()
	s.Damage(Rect{1, 2, 3, 4})
	b, missed := s.Acquire()
	if b == a || missed != (Rect{0, 0, 100, 50}) {
		t.Fatalf("the second buffer is %v and missed %v", b, missed)
	}
	b.BeginRead()
	s.Damage(Rect{90, 40, 0xffffffff, 0xffffffff})
	if c, _ := s.Acquire(); c != nil {
		t.Fatal("got a buffer that is being read")
	}
	a.EndRead()
	if idle != 1 {
		t.Errorf("idle was reported %d times", idle)
	}
	c, missed := s.Acquire()
	if c != a || missed != (Rect{1, 2, 99, 48}) {
		t.Errorf("got %v, missed %v", c, missed)
	}
	b.EndRead()
	// b has missed 10x10, a nothing: the one with the least to draw comes first.
	if c, missed := s.Acquire(); c != a || !missed.Empty() {
		t.Errorf("got %v, missed %v", c, missed)
	}
	s.Undrawn(a)
	if c, missed := s.Acquire(); c != b || missed != (Rect{90, 40, 10, 10}) {
		t.Errorf("got %v, missed %v", c, missed)
	}
}

func TestSwapchainErrors(t *testing.T) {
	if _, err := AllocSwapchain(0, 1, 1, dmabuf.XRGB8888, "x"); !errors.Is(err, ErrInvalid) {
		t.Errorf("no buffers: %v", err)
	}
	if _, err := AllocSwapchain(2, 1, 99999, dmabuf.XRGB8888, "x"); !errors.Is(err, ErrInvalid) {
		t.Errorf("too high: %v", err)
	}
	a, _ := Alloc(1, 1, dmabuf.XRGB8888, "a")
	b, _ := Alloc(1, 2, dmabuf.XRGB8888, "b")
	if _, err := NewSwapchain(a, b); !errors.Is(err, ErrInvalid) {
		t.Errorf("unequal: %v", err)
	}
	s, err := AllocSwapchain(1, 8, 8, dmabuf.XRGB8888, "held")
	if err != nil {
		t.Fatal(err)
	}
	held, _ := s.Acquire()
	held.BeginRead()
	s.Close()
	s.Close()
	s.Damage(Rect{0, 0, 1, 1})
	if c, _ := s.Acquire(); c != nil {
		t.Error("a closed chain has a buffer")
	}
	held.Mem[0] = 1 // still mapped
	held.EndRead()
}

// TestSwapchainModel draws pictures through the chain and compares each buffer,
// when acquired and drawn, with the whole picture.
func TestSwapchainModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const w, h = 16, 8
		s, err := AllocSwapchain(rapid.IntRange(1, 3).Draw(t, "n"), w, h, dmabuf.R8, "model")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		picture := make([]byte, w*h)
		var readers []*dmabuf.Buffer
		defer func() {
			for _, b := range readers {
				b.EndRead()
			}
		}()
		var m Meter
		for range 30 {
			if len(readers) > 0 && rapid.Bool().Draw(t, "release") {
				readers[0].EndRead()
				readers = readers[1:]
			}
			r := Rect{rapid.Uint32Range(0, w).Draw(t, "x"), rapid.Uint32Range(0, h).Draw(t, "y"),
				rapid.Uint32Range(0, w).Draw(t, "w"), rapid.Uint32Range(0, h).Draw(t, "h")}
			v := rapid.Byte().Draw(t, "value")
			in := r.clip(w, h)
			for y := in.Y; y < in.Y+in.H; y++ {
				for x := in.X; x < in.X+in.W; x++ {
					picture[y*w+x] = v
				}
			}
			s.Damage(r)
			b, missed := s.Acquire()
			if b == nil {
				continue
			}
			err := m.CopyRect(&Copy{Dst: b.Mem, DstStride: b.Planes[0].Stride, DstX: missed.X, DstY: missed.Y,
				Src: [][]byte{picture}, SrcOffset: uint64(missed.Y*w + missed.X), SrcStride: w,
				W: missed.W, H: missed.H, BytesPerPixel: 1})
			if err != nil {
				t.Fatal(err)
			}
			for y := range h {
				row := b.Mem[y*int(b.Planes[0].Stride):][:w]
				if string(row) != string(picture[y*w:][:w]) {
					t.Fatalf("row %d: % x, want % x", y, row, picture[y*w:][:w])
				}
			}
			b.BeginRead()
			readers = append(readers, b)
		}
	})
}

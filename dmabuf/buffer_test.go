package dmabuf_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/gpubroker/gpubroker/dmabuf"
)

func desc(t *testing.T, planes int) dmabuf.Desc {
	t.Helper()
	d := dmabuf.Desc{Kind: dmabuf.KindDMABuf, Width: 64, Height: 32, Fourcc: dmabuf.XRGB8888, Origin: "test"}
	for range planes {
		d.Planes = append(d.Planes, dmabuf.Plane{FD: newFD(t, "plane"), Stride: 256})
	}
	return d
}

func TestNewBuffer(t *testing.T) {
	a, err := dmabuf.New(desc(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	b, err := dmabuf.New(desc(t, 4))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if a.ID == b.ID || a.ID == 0 {
		t.Errorf("ids %d and %d", a.ID, b.ID)
	}
	if a.References() != 1 || a.Reading() || a.Size(0) != 256*32 {
		t.Errorf("new buffer: %d references, reading %v, %d bytes", a.References(), a.Reading(), a.Size(0))
	}
	for _, want := range []string{"dmabuf", "64x32", "XRGB8888", "LINEAR", "test"} {
		if !strings.Contains(a.String(), want) {
			t.Errorf("%q lacks %q", a.String(), want)
		}
	}
}

// TestNewBufferRefuses checks every limit, and that the descriptors are closed then.
func TestNewBufferRefuses(t *testing.T) {
	for name, change := range map[string]func(d *dmabuf.Desc){
		"kind":              func(d *dmabuf.Desc) { d.Kind = 0 },
		"unknown kind":      func(d *dmabuf.Desc) { d.Kind = 9 },
		"width 0":           func(d *dmabuf.Desc) { d.Width = 0 },
		"height 0":          func(d *dmabuf.Desc) { d.Height = 0 },
		"width":             func(d *dmabuf.Desc) { d.Width = dmabuf.MaxDimension + 1 },
		"height":            func(d *dmabuf.Desc) { d.Height = dmabuf.MaxDimension + 1 },
		"stride 0":          func(d *dmabuf.Desc) { d.Planes[1].Stride = 0 },
		"shm with 2 planes": func(d *dmabuf.Desc) { d.Kind = dmabuf.KindShm },
		"closed plane":      func(d *dmabuf.Desc) { _ = d.Planes[1].FD.Close() },
		"nil plane":         func(d *dmabuf.Desc) { d.Planes = append(d.Planes, dmabuf.Plane{Stride: 1}) },
		"5 planes": func(d *dmabuf.Desc) {
			for range 3 {
				d.Planes = append(d.Planes, dmabuf.Plane{FD: newFD(t, "plane"), Stride: 1})
			}
		},
	} {
		d := desc(t, 2)
		change(&d)
		b, err := dmabuf.New(d)
		if b != nil || !errors.Is(err, dmabuf.ErrInvalid) {
			t.Errorf("%s: %v, %v: want ErrInvalid", name, b, err)
		}
		for i, p := range d.Planes {
			if p.FD.Valid() {
				t.Errorf("%s: plane %d is open after the error", name, i)
			}
		}
	}
	if _, err := dmabuf.New(dmabuf.Desc{Kind: dmabuf.KindShm, Width: 1, Height: 1}); !errors.Is(err, dmabuf.ErrInvalid) {
		t.Errorf("no planes: %v, want ErrInvalid", err)
	}
}

func TestBufferLife(t *testing.T) {
	d := desc(t, 2)
	freed := 0
	d.Free = func() {
		freed++
		if d.Planes[0].FD.Valid() || d.Planes[1].FD.Valid() {
			t.Error("Free ran before the descriptors were closed")
		}
	}
	b, err := dmabuf.New(d)
	if err != nil {
		t.Fatal(err)
	}
	if b.Retain() != b {
		t.Error("Retain returns another buffer")
	}
	b.Release()
	if freed != 0 || b.References() != 1 {
		t.Fatalf("freed %d times with %d references", freed, b.References())
	}
	b.Release()
	if freed != 1 {
		t.Fatalf("freed %d times, want 1", freed)
	}
	for name, f := range map[string]func(){
		"Release":   b.Release,
		"Retain":    func() { b.Retain() },
		"BeginRead": b.BeginRead,
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s of a freed buffer did not panic", name)
				}
			}()
			f()
		}()
	}
	var none *dmabuf.Buffer
	none.Release()
}

func TestBufferReads(t *testing.T) {
	freed := false
	d := desc(t, 1)
	d.Free = func() { freed = true }
	b, err := dmabuf.New(d)
	if err != nil {
		t.Fatal(err)
	}
	idle := 0
	b.OnIdle(func(x *dmabuf.Buffer) {
		idle++
		if x != b || x.Reading() || freed {
			t.Errorf("idle: reading %v, freed %v", x.Reading(), freed)
		}
	})
	b.BeginRead()
	b.BeginRead()
	b.Release() // the maker's reference
	if !b.Reading() || freed {
		t.Fatalf("reading %v, freed %v", b.Reading(), freed)
	}
	b.EndRead()
	if idle != 0 || !b.Reading() {
		t.Fatalf("idle ran %d times with a reader left", idle)
	}
	b.EndRead()
	if idle != 1 || !freed {
		t.Errorf("idle ran %d times, freed %v: want 1, true", idle, freed)
	}
}

func TestBufferConcurrent(t *testing.T) {
	freed := make(chan bool, 10)
	d := desc(t, 1)
	d.Free = func() { freed <- true }
	b, err := dmabuf.New(d)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		b.Retain()
		wg.Go(func() {
			for range 1000 {
				b.BeginRead()
				_ = b.Reading()
				b.EndRead()
			}
			b.Release()
		})
	}
	b.Release()
	wg.Wait()
	if len(freed) != 1 {
		t.Errorf("freed %d times, want 1", len(freed))
	}
}

func TestBufferSizeOfPlanes(t *testing.T) {
	d := desc(t, 2)
	d.Fourcc, d.Height = dmabuf.NV12, 33
	b, err := dmabuf.New(d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if b.Size(0) != 256*33 || b.Size(1) != 256*17 {
		t.Errorf("NV12 planes of %d and %d bytes, want %d and %d", b.Size(0), b.Size(1), 256*33, 256*17)
	}
}

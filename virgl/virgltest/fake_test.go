package virgltest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/virgl"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

func newFake(t *testing.T, cfg Config) *Fake {
	t.Helper()
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

const w, h = 7, 5

func texture(id, flags uint32) *virgl.ResourceArgs {
	return &virgl.ResourceArgs{ID: id, Target: 2, Format: 1, Bind: 2, Width: w, Height: h, Depth: 1, ArraySize: 1, Flags: flags}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func clean(t *testing.T, f *Fake) {
	t.Helper()
	if m := f.Misuse(); len(m) > 0 {
		t.Errorf("misuse: %q", m)
	}
}

func picture() []byte {
	p := make([]byte, 4*w*h)
	for i := range p {
		p[i] = byte(i*7 + 1)
	}
	return p
}

// TestPixels moves a picture through transfers, reads and an export.
func TestPixels(t *testing.T) {
	for _, kind := range []dmabuf.Kind{dmabuf.KindShm, dmabuf.KindDMABuf} {
		for _, flags := range []uint32{0, virgl.FlagY0Top} {
			f := newFake(t, Config{Kind: kind})
			if f.Info().DMABufExport != (kind == dmabuf.KindDMABuf) {
				t.Errorf("%v: info %+v", kind, f.Info())
			}
			want := picture()
			src := bytes.Clone(want)
			must(t, f.CreateResource(texture(1, flags)), f.AttachBacking(1, [][]byte{src[:3], src[3:50], src[50:]}))
			must(t, f.TransferToHost(&virgl.Transfer{Resource: 1, Box: virgl.Box{W: w, H: h, D: 1}}))
			got := make([]byte, len(want))
			must(t, f.ReadPixels(1, 0, 0, w, h, 4*w, got))
			if !bytes.Equal(got, want) {
				t.Errorf("%v flags %d: read % x, want % x", kind, flags, got, want)
			}

			b, err := f.Export(1)
			must(t, err)
			if b.Kind != kind || b.Fourcc != dmabuf.ARGB8888 || b.YInvert != (flags != 0) || b.Width != w || b.Height != h {
				t.Errorf("exported %v, y inverted %v", b, b.YInvert)
			}
			mem, err := dmabuf.Map(b.Planes[0].FD, int64(b.Size(0)), false)
			must(t, err)
			row := func(y int) []byte {
				if b.YInvert {
					y = h - 1 - y
				}
				return mem[y*int(b.Planes[0].Stride):][:4*w]
			}
			if !bytes.Equal(row(0), want[:4*w]) || !bytes.Equal(row(h-1), want[4*w*(h-1):]) {
				t.Errorf("%v flags %d: exported rows differ", kind, flags)
			}
			// A transfer after the export lands in the exported memory.
			copy(src[4*(2*w+1):], []byte{9, 8, 7, 6})
			must(t, f.TransferToHost(&virgl.Transfer{Resource: 1, Stride: 4 * w, Offset: 4 * (2*w + 1), Box: virgl.Box{X: 1, Y: 2, W: 1, H: 1, D: 1}}))
			if !bytes.Equal(row(2)[4:8], []byte{9, 8, 7, 6}) {
				t.Errorf("%v flags %d: the exported texel is % x", kind, flags, row(2)[4:8])
			}
			f.UnrefResource(1)
			if !bytes.Equal(row(2)[4:8], []byte{9, 8, 7, 6}) {
				t.Error("the pixels went with the resource")
			}
			must(t, dmabuf.Unmap(mem))
			b.Release()
			clean(t, f)
		}
	}
}

func TestTransferFromHost(t *testing.T) {
	f := newFake(t, Config{})
	must(t, f.CreateContext(1, 0, "ctx"), f.CreateResource(texture(1, 0)))
	f.AttachResource(1, 1)
	must(t, f.Paint(1, func(p []byte) { copy(p, picture()) }))
	back := make([]byte, 4*w*h+10)
	must(t, f.AttachBacking(1, [][]byte{back[:11], back[11:]}))
	must(t, f.TransferFromHost(&virgl.Transfer{Resource: 1, Ctx: 1, Offset: 10, Box: virgl.Box{W: w, H: h, D: 1}}))
	if !bytes.Equal(back[10:], picture()) {
		t.Errorf("backing is % x", back[10:])
	}
	clean(t, f)
}

func TestFences(t *testing.T) {
	var got []Fence
	f := newFake(t, Config{ManualFences: true, OnFence: func(ctx, id uint32) { got = append(got, Fence{ctx, id}) }})
	must(t, f.CreateContext(3, 0, ""))
	readable := func() bool {
		fds := []unix.PollFd{{Fd: int32(f.PollFD()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		must(t, err)
		return n == 1
	}
	for id := range uint32(3) {
		must(t, f.CreateFence(3, id))
	}
	f.Poll()
	if readable() || len(got) != 0 || len(f.Pending()) != 3 || f.Stats().FencesPending != 3 {
		t.Fatalf("before Signal: readable %v, got %v, pending %v", readable(), got, f.Pending())
	}
	f.Signal(2)
	if !readable() || len(got) != 0 {
		t.Fatalf("after Signal: readable %v, got %v", readable(), got)
	}
	f.Poll()
	if want := []Fence{{3, 0}, {3, 1}}; !slices.Equal(got, want) || readable() {
		t.Fatalf("got %v, want %v; readable %v", got, want, readable())
	}
	f.Signal(-1)
	f.Signal(5)
	f.Poll()
	if len(got) != 3 {
		t.Errorf("got %v", got)
	}
	must(t, f.CreateFence(0, 9))
	f.Reset()
	f.Signal(-1)
	f.Poll()
	if len(got) != 3 {
		t.Errorf("a fence survived Reset: %v", got)
	}
	clean(t, f)

	got = nil
	auto := newFake(t, Config{OnFence: func(ctx, id uint32) { got = append(got, Fence{ctx, id}) }})
	must(t, auto.CreateFence(0, 1))
	if len(got) != 0 {
		t.Error("OnFence called by CreateFence")
	}
	auto.Poll()
	if !slices.Equal(got, []Fence{{0, 1}}) {
		t.Errorf("automatic: got %v", got)
	}
}

var errBoom = errors.New("boom")

func TestFail(t *testing.T) {
	f := newFake(t, Config{Kind: dmabuf.KindShm})
	must(t, f.CreateContext(1, 0, ""), f.CreateResource(texture(1, 0)), f.AttachBacking(1, [][]byte{picture()}))
	f.AttachResource(1, 1)
	all := virgl.Transfer{Resource: 1, Box: virgl.Box{W: w, H: h, D: 1}}
	calls := map[Op]func() error{
		OpFillCapset:       func() error { return f.FillCapset(1, 1, make([]byte, 308)) },
		OpCreateContext:    func() error { return f.CreateContext(2, 0, "") },
		OpCreateResource:   func() error { return f.CreateResource(texture(2, 0)) },
		OpAttachBacking:    func() error { return f.AttachBacking(2, [][]byte{picture()}) },
		OpTransferToHost:   func() error { return f.TransferToHost(&all) },
		OpTransferFromHost: func() error { return f.TransferFromHost(&all) },
		OpSubmit:           func() error { return f.Submit(1, make([]byte, 8)) },
		OpReadPixels:       func() error { return f.ReadPixels(1, 0, 0, w, h, 4*w, make([]byte, 4*w*h)) },
		OpExport: func() error {
			b, err := f.Export(1)
			b.Release()
			return err
		},
		OpCreateFence: func() error { return f.CreateFence(0, 1) },
	}
	order := []Op{OpFillCapset, OpCreateContext, OpCreateResource, OpAttachBacking, OpTransferToHost, OpTransferFromHost, OpSubmit, OpReadPixels, OpExport, OpCreateFence}
	if len(order) != len(calls) {
		t.Fatal("the table and the order differ")
	}
	for _, op := range order {
		before := f.Calls(op)
		f.Fail(op, errBoom)
		for range 2 {
			if err := calls[op](); !errors.Is(err, errBoom) || !strings.Contains(err.Error(), string(op)) {
				t.Errorf("%s: %v, want boom", op, err)
			}
		}
		f.Fail(op, nil)
		f.FailOnce(op, errBoom)
		if err := calls[op](); !errors.Is(err, errBoom) {
			t.Errorf("%s once: %v, want boom", op, err)
		}
		if err := calls[op](); err != nil {
			t.Errorf("%s after the failures: %v", op, err)
		}
		if n := f.Calls(op) - before; n != 4 {
			t.Errorf("%s: %d calls counted, want 4", op, n)
		}
	}
	clean(t, f)
}

// TestMisuse does everything wrong once; each must be reported, none may panic.
func TestMisuse(t *testing.T) {
	f := newFake(t, Config{})
	must(t, f.CreateContext(1, 0, ""), f.CreateResource(texture(1, 0)), f.CreateResource(texture(2, 0)), f.AttachBacking(2, [][]byte{make([]byte, 10)}))
	buf := make([]byte, 64)
	for name, do := range map[string]func(){
		"context twice":   func() { _ = f.CreateContext(1, 0, "") },
		"context 0":       func() { _ = f.CreateContext(0, 0, "") },
		"unknown context": func() { f.DestroyContext(9) },
		"resource twice":  func() { _ = f.CreateResource(texture(1, 0)) },
		"huge resource": func() {
			_ = f.CreateResource(&virgl.ResourceArgs{ID: 8, Target: 2, Format: 1, Width: 1 << 31, Height: 1 << 31})
		},
		"unknown resource":    func() { f.UnrefResource(9) },
		"attach to nothing":   func() { f.AttachResource(9, 1) },
		"attach nothing":      func() { f.AttachResource(1, 9) },
		"detach unattached":   func() { f.DetachResource(1, 1) },
		"backing of nothing":  func() { _ = f.AttachBacking(9, [][]byte{buf}) },
		"backing twice":       func() { _ = f.AttachBacking(2, [][]byte{buf}) },
		"no segments":         func() { _ = f.AttachBacking(1, nil) },
		"detach of nothing":   func() { f.DetachBacking(9) },
		"transfer of nothing": func() { _ = f.TransferToHost(&virgl.Transfer{Resource: 9}) },
		"transfer unattached": func() { _ = f.TransferToHost(&virgl.Transfer{Resource: 2, Ctx: 1}) },
		"transfer unbacked":   func() { _ = f.TransferToHost(&virgl.Transfer{Resource: 1}) },
		"transfer outside": func() {
			_ = f.TransferToHost(&virgl.Transfer{Resource: 2, Box: virgl.Box{X: 0xffffffff, W: 2, H: 1, D: 1}})
		},
		"transfer short backing":  func() { _ = f.TransferFromHost(&virgl.Transfer{Resource: 2, Box: virgl.Box{W: w, H: h, D: 1}}) },
		"submit to nothing":       func() { _ = f.Submit(9, buf) },
		"submit half a word":      func() { _ = f.Submit(1, buf[:6]) },
		"submit unaligned":        func() { _ = f.Submit(1, buf[1:9]) },
		"read of nothing":         func() { _ = f.ReadPixels(9, 0, 0, 1, 1, 4, buf) },
		"read outside":            func() { _ = f.ReadPixels(1, 1, 0, w, 1, 4*w, make([]byte, 100)) },
		"read into too little":    func() { _ = f.ReadPixels(1, 0, 0, w, h, 4*w, buf) },
		"read with a short row":   func() { _ = f.ReadPixels(1, 0, 0, w, h, 4, make([]byte, 1000)) },
		"export of nothing":       func() { _, _ = f.Export(9) },
		"paint of nothing":        func() { _ = f.Paint(9, nil) },
		"fence of nothing":        func() { _ = f.CreateFence(9, 1) },
		"unknown capset":          func() { _ = f.FillCapset(4, 0, buf) },
		"capset of another size":  func() { _ = f.FillCapset(1, 1, buf) },
		"capset of a new version": func() { _ = f.FillCapset(1, 9, make([]byte, 308)) },
	} {
		before := len(f.Misuse())
		do()
		if got := len(f.Misuse()) - before; got != 1 {
			t.Errorf("%s: %d reports, want 1", name, got)
		}
	}
}

func TestUnsupported(t *testing.T) {
	f := newFake(t, Config{})
	must(t, f.CreateResource(texture(1, 0)))
	must(t, f.CreateResource(&virgl.ResourceArgs{ID: 2, Target: 0, Format: 64, Width: 4096, Height: 1}))
	if _, err := f.Export(1); !errors.Is(err, virgl.ErrNotSupported) {
		t.Errorf("export: %v, want ErrNotSupported", err)
	}
	if err := f.ReadPixels(2, 0, 0, 1, 1, 4, make([]byte, 4)); !errors.Is(err, virgl.ErrNotSupported) {
		t.Errorf("read of a buffer: %v, want ErrNotSupported", err)
	}
	no := newFake(t, Config{NoGL: true})
	if no.Info().GL {
		t.Error("NoGL has GL")
	}
	for _, err := range []error{no.CreateContext(1, 0, ""), no.CreateResource(texture(1, 0))} {
		if !errors.Is(err, virgl.ErrNotSupported) {
			t.Errorf("NoGL: %v, want ErrNotSupported", err)
		}
	}
	clean(t, f)
}

func TestSubmitHook(t *testing.T) {
	f := newFake(t, Config{OnSubmit: func(f *Fake, ctx uint32, cmds []byte) error {
		if ctx == 1 && cmds[0] == 5 {
			return f.Paint(1, func(p []byte) { p[0] = 99 })
		}
		return errBoom
	}})
	must(t, f.CreateContext(1, 2, "hook"), f.CreateResource(texture(1, 0)))
	f.AttachResource(1, 1)
	if init, name, ok := f.Context(1); init != 2 || name != "hook" || !ok || !f.Attached(1, 1) {
		t.Errorf("context %d %q %v, attached %v", init, name, ok, f.Attached(1, 1))
	}
	must(t, f.Submit(1, []byte{5, 0, 0, 0}))
	if err := f.Submit(1, []byte{6, 0, 0, 0}); !errors.Is(err, errBoom) {
		t.Errorf("hook's error: %v", err)
	}
	p := make([]byte, 4)
	must(t, f.ReadPixels(1, 0, 0, 1, 1, 4, p))
	if p[0] != 99 {
		t.Errorf("painted %d, want 99", p[0])
	}
	f.DetachResource(1, 1)
	if f.Attached(1, 1) {
		t.Error("still attached")
	}
	f.Reset()
	if s := f.Stats(); s != (virgl.Stats{}) {
		t.Errorf("after Reset: %+v", s)
	}
	clean(t, f)
}

package virgl

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/virgl/dl"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

func TestInfo(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		i := r.Info()
		t.Logf("%+v", i)
		if !i.GL || i.Library != "libvirglrenderer.so.1" || i.Node == "" || r.PollFD() < 0 {
			t.Errorf("info %+v, poll fd %d", i, r.PollFD())
		}
		if len(i.Capsets) != 2 || i.Capsets[0].ID != CapsetVirgl || i.Capsets[1].ID != CapsetVirgl2 {
			t.Errorf("capsets %+v, want 1 and 2", i.Capsets)
		}
		for _, c := range i.Capsets {
			p := make([]byte, c.MaxSize)
			if err := r.FillCapset(c.ID, c.MaxVersion, p); err != nil {
				t.Error(err)
			}
			if p[0] == 0 || bytes.Count(p, []byte{0}) == len(p) {
				t.Errorf("capset %d starts with % x", c.ID, p[:8])
			}
			if err := r.FillCapset(c.ID, c.MaxVersion+1, p); !errors.Is(err, ErrInvalid) {
				t.Errorf("version %d: %v, want ErrInvalid", c.MaxVersion+1, err)
			}
			if err := r.FillCapset(c.ID, c.MaxVersion, p[1:]); !errors.Is(err, ErrInvalid) {
				t.Errorf("short buffer: %v, want ErrInvalid", err)
			}
		}
		if err := r.FillCapset(4, 0, make([]byte, 160)); !errors.Is(err, ErrNotSupported) {
			t.Errorf("venus: %v, want ErrNotSupported", err)
		}
	})
}

// TestAgain starts and stops the library several times in one process and expects no
// descriptor to stay.
func TestAgain(t *testing.T) {
	onThread(t, nil, func(*renderer) {}) // what Mesa keeps for ever
	before := fdtest.Count(t)
	for range 3 {
		onThread(t, nil, func(r *renderer) {
			g := newGuest(t, r, 1)
			g.target(1, virglcmd.FormatB8G8R8A8, 64, 64, 0)
			g.clear(1, virglcmd.FormatB8G8R8A8, testColor)
			_ = r.CreateFence(1, 1) // pending at Close
		})
	}
	if after := fdtest.Count(t); after > before {
		t.Errorf("%d descriptors after three renderers, %d before", after, before)
	}
}

func TestOneAtATime(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		if _, err := New(Config{}); !errors.Is(err, ErrBusy) {
			t.Errorf("second New: %v, want ErrBusy", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil { // onThread closes a third time
			t.Error(err)
		}
	})
}

func TestMissingLibrary(t *testing.T) {
	was := libSpec
	defer func() { libSpec = was }()
	libSpec = dl.Spec{Sonames: []string{"libnosuch.so.7"}, Package: "libvirglrenderer1"}
	_, err := New(Config{})
	if !errors.Is(err, ErrLibrary) || !errors.Is(err, dl.ErrMissing) || !strings.Contains(err.Error(), "libvirglrenderer1") ||
		!strings.Contains(err.Error(), "libnosuch.so.7") {
		t.Errorf("%v: want ErrLibrary, the soname and the package", err)
	}
	libSpec = was
	wasGL := glSpecs
	defer func() { glSpecs = wasGL }()
	glSpecs = []dl.Spec{wasGL[0], {Sonames: []string{"libNoGL.so.1"}, Package: "libgl1"}}
	_, err = New(Config{})
	if !errors.Is(err, ErrLibrary) || !errors.Is(err, dl.ErrMissing) || !strings.Contains(err.Error(), "package libgl1") {
		t.Errorf("%v: want ErrLibrary and the package libgl1", err)
	}
	glSpecs = wasGL
	libSpec = dl.Spec{Sonames: []string{"libc.so.6"}, Package: "libvirglrenderer1"}
	_, err = New(Config{})
	if !errors.Is(err, ErrLibrary) || !errors.Is(err, dl.ErrSymbol) || !strings.Contains(err.Error(), "virgl_renderer_submit_cmd") {
		t.Errorf("%v: want ErrLibrary and the missing functions", err)
	}
}

func TestBadNode(t *testing.T) {
	runtime.LockOSThread() // the thread ends with the test's goroutine
	if _, err := New(Config{RenderNode: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing node: %v, want ENOENT", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := fdtest.Count(t)
	for _, node := range []string{file, "/dev/null"} {
		r, err := New(Config{RenderNode: node})
		if err == nil {
			_ = r.Close()
		}
		if !errors.Is(err, ErrNotSupported) {
			t.Errorf("%s as a render node: %v, want ErrNotSupported", node, err)
		}
	}
	if after := fdtest.Count(t); after > before {
		t.Errorf("%d descriptors after the failures, %d before", after, before)
	}
	onThread(t, nil, func(*renderer) {}) // the failure left nothing in the way
}

func TestThreadCheck(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		got := make(chan any)
		go func() {
			defer func() { got <- recover() }()
			runtime.LockOSThread()
			r.Poll()
		}()
		if err, ok := (<-got).(error); !ok || !errors.Is(err, ErrThread) {
			t.Errorf("Poll on another thread: %v, want a panic with ErrThread", err)
		}
	})
}

func TestContextErrors(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		for _, c := range []struct {
			ctx, init uint32
			want      error
		}{
			{0, 0, ErrInvalid}, {1, 0x100, ErrInvalid}, {1, 4, ErrNotSupported}, {1, 6, ErrNotSupported}, {1, 99, ErrNotSupported},
			{1, 0, nil}, {1, 0, ErrInvalid}, {2, CapsetVirgl, nil}, {3, CapsetVirgl2, nil},
		} {
			err := r.CreateContext(c.ctx, c.init, strings.Repeat("n", 100))
			if !errors.Is(err, c.want) {
				t.Errorf("context %d init %#x: %v, want %v", c.ctx, c.init, err, c.want)
			}
		}
		if s := r.Stats(); s.Contexts != 3 {
			t.Errorf("%d contexts, want 3", s.Contexts)
		}
		r.DestroyContext(77)
		r.DestroyContext(1)
		if s := r.Stats(); s.Contexts != 2 {
			t.Errorf("%d contexts, want 2", s.Contexts)
		}
		if err := r.Submit(77, make([]byte, 8)); !errors.Is(err, unix.EINVAL) {
			t.Errorf("submit to no context: %v, want EINVAL", err)
		}
		buf := make([]byte, 64)
		for _, p := range [][]byte{buf[:3], buf[:5], buf[1:5]} {
			if err := r.Submit(2, p); !errors.Is(err, ErrInvalid) {
				t.Errorf("submit %d bytes: %v, want ErrInvalid", len(p), err)
			}
		}
		if err := r.Submit(2, nil); err != nil {
			t.Error(err)
		}
		if err := r.Submit(2, []byte{0xff, 0, 0, 0}); !errors.Is(err, unix.EINVAL) {
			t.Errorf("unknown command: %v, want EINVAL", err)
		}
	})
}

func TestResourceErrors(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		good := ResourceArgs{ID: 1, Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8A8,
			Bind: virglcmd.BindRenderTarget, Width: 32, Height: 16, Depth: 1, ArraySize: 1}
		if err := r.CreateResource(&good); err != nil {
			t.Fatal(err)
		}
		for _, change := range []func(a *ResourceArgs){
			func(a *ResourceArgs) { a.ID = 0 },
			func(a *ResourceArgs) { a.ID = 1 },
			func(a *ResourceArgs) { a.Format = 9999 },
			func(a *ResourceArgs) { a.Target = 99 },
			func(a *ResourceArgs) { a.Width = 1 << 30 },
		} {
			a := good
			a.ID = 2
			change(&a)
			if err := r.CreateResource(&a); err == nil {
				t.Errorf("created %+v", a)
			}
		}
		mem := make([]byte, 32*16*4)
		for _, c := range []struct {
			name string
			err  error
		}{
			{"backing for nothing", r.AttachBacking(9, [][]byte{mem})},
			{"no segments", r.AttachBacking(1, nil)},
			{"transfer without backing", r.TransferToHost(&Transfer{Resource: 1, Box: Box{W: 1, H: 1, D: 1}})},
			{"transfer of nothing", r.TransferToHost(&Transfer{Resource: 9, Box: Box{W: 1, H: 1, D: 1}})},
			{"export of nothing", second(r.Export(9))},
			{"read of nothing", r.ReadPixels(9, 0, 0, 1, 1, 4, mem)},
		} {
			if c.err == nil {
				t.Errorf("%s: no error", c.name)
			}
		}
		if err := r.AttachBacking(1, [][]byte{mem}); err != nil {
			t.Fatal(err)
		}
		if err := r.AttachBacking(1, [][]byte{mem}); !errors.Is(err, ErrInvalid) {
			t.Errorf("second backing: %v, want ErrInvalid", err)
		}
		for _, x := range []Transfer{
			{Box: Box{W: 33, H: 16, D: 1}},
			{Box: Box{X: 1, W: 32, H: 16, D: 1}},
			{Box: Box{Y: 1, W: 32, H: 16, D: 1}},
			{Box: Box{X: 0xffffffff, W: 2, H: 1, D: 1}},
			{Box: Box{Y: 0xffffffff, W: 1, H: 2, D: 1}},
			{Box: Box{Z: 0xffffffff, W: 1, H: 1, D: 1}},
			{Box: Box{Z: 0xffffffff, W: 1, H: 1, D: 2}},
			{Box: Box{W: 1, H: 1, D: 2}},
			{Level: 1, Box: Box{W: 1, H: 1, D: 1}},
			{Level: 0xffffffff, Box: Box{W: 1, H: 1, D: 1}},
			{Offset: 1, Box: Box{W: 32, H: 16, D: 1}},
			{Offset: 1 << 63, Box: Box{W: 1, H: 1, D: 1}},
			{Offset: 1<<64 - 1, Box: Box{W: 1, H: 1, D: 1}},
			{Stride: 1 << 31, Box: Box{W: 32, H: 16, D: 1}},
			{Stride: 1 << 28, Box: Box{W: 32, H: 16, D: 1}},
			{Stride: 64, Box: Box{W: 32, H: 16, D: 1}},
			{LayerStride: 1 << 31, Box: Box{W: 1, H: 1, D: 1}},
		} {
			x.Resource = 1
			if err := r.TransferToHost(&x); err == nil {
				t.Errorf("%+v was accepted towards the host", x)
			}
			if err := r.TransferFromHost(&x); err == nil {
				t.Errorf("%+v was accepted from the host", x)
			}
		}
		if err := r.TransferToHost(&Transfer{Resource: 1, Box: Box{W: 32, H: 16, D: 1}}); err != nil {
			t.Errorf("a good transfer after the bad ones: %v", err)
		}
		if err := r.ReadPixels(1, 0, 0, 32, 16, 128, mem[:100]); err == nil {
			t.Error("ReadPixels into 100 bytes was accepted")
		}
		if err := r.ReadPixels(1, 0, 0, 32, 16, 128, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("ReadPixels into nothing: %v, want ErrInvalid", err)
		}
		if err := r.ReadPixels(1, 0, 0, 32, 16, 128, mem); err != nil {
			t.Errorf("a good ReadPixels after the bad ones: %v", err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// TestReset fills the renderer and resets it, over and over, and expects ids to be
// free again and no descriptor to stay.
func TestReset(t *testing.T) {
	signalled := 0
	onThread(t, func(_, _ uint32) { signalled++ }, func(r *renderer) {
		before := 0
		for round := range 8 {
			if round == 1 {
				before = fdtest.Count(t)
			}
			var keep []*dmabuf.Buffer
			for ctx := range uint32(3) {
				g := newGuest(t, r, ctx+1)
				for i := range uint32(4) {
					id := ctx*10 + i + 1
					g.target(id, virglcmd.FormatB8G8R8A8, 64, 64, 0)
					g.clear(id, virglcmd.FormatB8G8R8A8, testColor)
					if err := r.AttachBacking(id, [][]byte{pattern(64, 64)}); err != nil {
						t.Fatal(err)
					}
					if b, err := r.Export(id); err == nil {
						keep = append(keep, b)
					}
				}
				if err := r.CreateFence(ctx+1, ctx); err != nil {
					t.Fatal(err)
				}
			}
			r.Reset()
			if s := r.Stats(); s != (Stats{}) {
				t.Fatalf("after Reset: %+v", s)
			}
			for _, b := range keep {
				b.Release()
			}
		}
		signalled = 0
		r.settle()
		r.Poll()
		if signalled != 0 {
			t.Errorf("%d fences signalled after Reset", signalled)
		}
		if after := fdtest.Count(t); after > before {
			t.Errorf("%d descriptors after 8 resets, %d after the first", after, before)
		}
		// The fence thread must have survived.
		g := newGuest(t, r, 1)
		g.target(1, virglcmd.FormatB8G8R8A8, 64, 64, 0)
		g.clear(1, virglcmd.FormatB8G8R8A8, testColor)
		if err := r.CreateFence(1, 99); err != nil {
			t.Fatal(err)
		}
		waitFence(t, r, func() bool { return signalled == 1 })
	})
}

// TestLog makes the library complain and expects the line in zap, and no flood.
func TestLog(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		r, err := New(Config{Log: zap.New(core)})
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = r.Close() }()
		if err := r.CreateContext(1, 0, "log"); err != nil {
			t.Error(err)
		}
		for range 10 * logBurst {
			_ = r.Submit(1, []byte{virglBindObject, 1, 1, 0, 0xff, 0xff, 0, 0}) // no such object
		}
	}()
	<-done
	found := false
	for _, e := range logs.All() {
		if strings.HasSuffix(e.Message, "\n") {
			t.Errorf("line %q ends with a newline", e.Message)
		}
		if e.Level >= zap.WarnLevel && strings.Contains(e.Message, "context") {
			found = true
		}
	}
	if !found {
		t.Errorf("no warning of the bad stream among %d lines", logs.Len())
	}
	if logs.Len() > 3*logBurst {
		t.Errorf("%d lines, limit %d a second", logs.Len(), logBurst)
	}
}

const virglBindObject = 2

func TestGuessLevel(t *testing.T) {
	for text, want := range map[string]zapcore.Level{
		"gl_version 45 - core profile enabled\n": zap.DebugLevel,
		"context 1 failed to dispatch CLEAR: 22": zap.WarnLevel,
		"Illegal handle":                         zap.WarnLevel,
	} {
		if got := guessLevel(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestNone(t *testing.T) {
	var fences []uint32
	r := None(func(_, id uint32) { fences = append(fences, id) })
	if i := r.Info(); i.GL || len(i.Capsets) != 0 {
		t.Errorf("info %+v", i)
	}
	for name, err := range map[string]error{
		"FillCapset":       r.FillCapset(1, 1, nil),
		"CreateContext":    r.CreateContext(1, 0, ""),
		"CreateResource":   r.CreateResource(&ResourceArgs{ID: 1}),
		"AttachBacking":    r.AttachBacking(1, nil),
		"TransferToHost":   r.TransferToHost(&Transfer{}),
		"TransferFromHost": r.TransferFromHost(&Transfer{}),
		"Submit":           r.Submit(1, nil),
		"ReadPixels":       r.ReadPixels(1, 0, 0, 0, 0, 0, nil),
		"Export":           second(r.Export(1)),
	} {
		if !errors.Is(err, ErrNotSupported) {
			t.Errorf("%s: %v, want ErrNotSupported", name, err)
		}
	}
	if err := r.CreateFence(0, 5); err != nil || len(fences) != 1 || fences[0] != 5 {
		t.Errorf("fence: %v, %v", err, fences)
	}
	r.DestroyContext(1)
	r.UnrefResource(1)
	r.DetachBacking(1)
	r.AttachResource(1, 1)
	r.DetachResource(1, 1)
	r.Poll()
	r.Reset()
	if r.PollFD() != -1 || r.Stats() != (Stats{}) || r.Close() != nil {
		t.Error("None has state")
	}
}

func TestResult(t *testing.T) {
	for rc, want := range map[int32]error{22: unix.EINVAL, -22: unix.EINVAL, -12: unix.ENOMEM, -16: unix.EBUSY} {
		if err := result(rc); !errors.Is(err, want) {
			t.Errorf("result(%d) = %v, want %v", rc, err, want)
		}
	}
	for _, rc := range []int32{-1, -2147483648, 100000} {
		var errno unix.Errno
		if err := result(rc); err == nil || errors.As(err, &errno) {
			t.Errorf("result(%d) = %v, want an error without an errno", rc, err)
		}
	}
}

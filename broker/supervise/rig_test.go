package supervise_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/supervise"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

const windowSize = 16 << 20

// vm is a guest of a supervised broker.
type vm struct {
	*fakeguest.Guest
	t       *testing.T
	sup     *supervise.Supervisor
	control string
	logs    *observer.ObservedLogs
	resp    []byte
}

func start(t *testing.T, profile vhostusertest.Profile, cfg supervise.Config) *vm {
	t.Helper()
	dir := t.TempDir()
	v := &vm{t: t, control: filepath.Join(dir, "control"), resp: make([]byte, 4096)}
	listen := func(name string) supervise.Front {
		l, err := vhostuser.Listen(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return supervise.Front{Listener: l}
	}
	cfg.Fronts = map[keep.Role]supervise.Front{keep.GPU: listen("gpu"), keep.Input: listen("input")}
	cfg.Command = func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "GPUBROKER_TEST_WORKER="+v.control)
		cmd.Stderr = os.Stderr
		return cmd
	}
	core, logs := observer.New(zapcore.InfoLevel)
	cfg.Log, v.logs = zap.New(core), logs
	ready := make(chan struct{})
	cfg.OnReady = func() { close(ready) }
	var err error
	if v.sup, err = supervise.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.sup.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			for _, e := range logs.All() {
				t.Log(e.Message, e.ContextMap())
			}
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatal(err)
	case <-time.After(time.Minute):
		t.Fatal("no worker")
	}
	v.connect(profile, filepath.Join(dir, "gpu"))
	return v
}

func (v *vm) connect(profile vhostusertest.Profile, path string) {
	v.t.Helper()
	gc := fakeguest.Config{Profile: profile}
	if profile.DisplaySocket {
		gc.Features = 1<<virtiogpu.FeatureVirgl | 1<<virtiogpu.FeatureEDID | 1<<virtiogpu.FeatureResourceUUID |
			vhostuser.FVersion1 | vhostuser.FIndirectDesc | vhostuser.FEventIdx | vhostuser.FProtocolFeatures
	}
	var err error
	if v.Guest, err = fakeguest.Dial(path, gc); err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(v.Quit)
	if err := v.Boot(); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vm) do(cmd []byte) (virtiogpu.Type, []byte) {
	v.t.Helper()
	n, err := v.Do(cmd, v.resp)
	if err != nil {
		v.t.Fatalf("%v: %v", virtiogpu.Type(binary.LittleEndian.Uint32(cmd)), err)
	}
	var h virtiogpu.CtrlHdr
	if err := h.Decode(v.resp[:n]); err != nil {
		v.t.Fatalf("%v: %d bytes: %v", virtiogpu.Type(binary.LittleEndian.Uint32(cmd)), n, err)
	}
	return h.Type, v.resp[:n]
}

func (v *vm) ok(cmd []byte) []byte {
	v.t.Helper()
	typ, resp := v.do(cmd)
	if !typ.IsOK() {
		v.t.Fatalf("%v answered with %v", virtiogpu.Type(binary.LittleEndian.Uint32(cmd)), typ)
	}
	return resp
}

func rect(w, h uint32) virtiogpu.Rect { return virtiogpu.Rect{Width: w, Height: h} }

func attachCmd(id uint32, b *fakeguest.Block) []byte {
	cmd := (&virtiogpu.ResourceAttachBacking{ResourceID: id, NrEntries: uint32(len(b.Entries))}).Append(nil)
	return appendEntries(cmd, b)
}

func appendEntries(cmd []byte, b *fakeguest.Block) []byte {
	for _, e := range b.Entries {
		cmd = virtiogpu.MemEntry{Addr: e.Addr, Length: e.Len}.Append(cmd)
	}
	return cmd
}

func fill(b *fakeguest.Block, c color.NRGBA) {
	row := make([]byte, b.Size)
	for i := 0; i < len(row); i += 4 {
		row[i], row[i+1], row[i+2], row[i+3] = c.B, c.G, c.R, 0
	}
	b.WriteAt(row, 0)
}

// screen is a 2D resource on a head.
type screen struct {
	id, w, h uint32
	head     uint32
	mem      *fakeguest.Block
}

func (v *vm) screen(id, head, w, h uint32) *screen {
	v.t.Helper()
	s := &screen{id: id, w: w, h: h, head: head}
	v.ok((&virtiogpu.ResourceCreate2D{ResourceID: id, Format: virtiogpu.FormatB8G8R8X8, Width: w, Height: h}).Append(nil))
	var err error
	if s.mem, err = v.Pages.Scattered(uint64(w) * uint64(h) * 4); err != nil {
		v.t.Fatal(err)
	}
	v.ok(attachCmd(id, s.mem))
	v.ok((&virtiogpu.SetScanout{ScanoutID: head, ResourceID: id, R: rect(w, h)}).Append(nil))
	return s
}

func (v *vm) paint(s *screen, c color.NRGBA) {
	v.t.Helper()
	fill(s.mem, c)
	v.ok((&virtiogpu.TransferToHost2D{ResourceID: s.id, R: rect(s.w, s.h)}).Append(nil))
	v.ok((&virtiogpu.ResourceFlush{ResourceID: s.id, R: rect(s.w, s.h)}).Append(nil))
}

// ask asks the worker's control socket, which is away for a moment when it dies.
func (v *vm) ask(request string, answer any) {
	v.t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = broker.Ask(v.control, request, answer); err == nil {
			return
		}
	}
	v.t.Fatal(err)
}

func (v *vm) shows(head string, want color.NRGBA) {
	v.t.Helper()
	var shot struct {
		PNG []byte `json:"png"`
	}
	v.ask("shot scanout "+head, &shot)
	img, err := png.Decode(bytes.NewReader(shot.PNG))
	if err != nil {
		v.t.Fatal(err)
	}
	b := img.Bounds()
	for _, p := range [][2]int{{0, 0}, {b.Max.X - 1, b.Max.Y - 1}, {b.Max.X / 2, b.Max.Y / 3}} {
		if got := color.NRGBAModel.Convert(img.At(p[0], p[1])).(color.NRGBA); got != want {
			v.t.Fatalf("head %s shows %v at %v, want %v", head, got, p, want)
		}
	}
}

// kill kills the worker and waits for the next.
func (v *vm) kill() {
	v.t.Helper()
	pid := v.pid(0)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		v.t.Fatal(err)
	}
	v.pid(pid)
}

// pid waits for a worker that is not this one.
func (v *vm) pid(not int) int {
	v.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if pid := v.sup.PID(); pid != 0 && pid != not {
			return pid
		}
	}
	v.t.Fatal("no worker")
	return 0
}

func (v *vm) context(id uint32, name string) {
	v.t.Helper()
	c := virtiogpu.CtxCreate{CtrlHdr: virtiogpu.CtrlHdr{CtxID: id}, NLen: uint32(len(name))}
	copy(c.Name[:], name)
	v.ok(c.Append(nil))
}

func submit(ctx uint32, words ...uint32) []byte {
	var stream []byte
	for _, w := range words {
		stream = binary.LittleEndian.AppendUint32(stream, w)
	}
	return append((&virtiogpu.Submit3D{CtrlHdr: virtiogpu.CtrlHdr{CtxID: ctx}, Size: uint32(len(stream))}).Append(nil), stream...)
}

func fds(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

var (
	red  = color.NRGBA{200, 10, 20, 255}
	blue = color.NRGBA{10, 20, 200, 255}
)

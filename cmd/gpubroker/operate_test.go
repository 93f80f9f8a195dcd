package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/virgl"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// served is a gpubroker serve with a guest.
type served struct {
	*fakeguest.Guest
	t       *testing.T
	control string
}

// serveProgram runs gpubroker serve as users do, and boots a fake guest on it.
func serveProgram(t *testing.T, args ...string) *served {
	t.Helper()
	dir := t.TempDir()
	s := &served{t: t, control: filepath.Join(dir, "control")}
	sock := filepath.Join(dir, "gpu")
	like := program(t, append([]string{"serve", "--socket-path", sock, "--control", s.control, "--display", "headless"}, args...)...)
	cmd := exec.Command(like.Path, like.Args[1:]...) // it outlives the test's context, to be ended in good order
	cmd.Env = like.Env
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v\n%s", err, &log)
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if lab.Listening(s.control) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it does not listen")
		}
	}
	var err error
	if s.Guest, err = fakeguest.Dial(sock, fakeguest.Config{Profile: vhostusertest.QEMU11A}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Quit)
	if err := s.Boot(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *served) ok(cmd []byte) {
	s.t.Helper()
	resp := make([]byte, 512)
	n, err := s.Do(cmd, resp)
	if err != nil {
		s.t.Fatal(err)
	}
	var h virtiogpu.CtrlHdr
	if err := h.Decode(resp[:n]); err != nil || !h.Type.IsOK() {
		s.t.Fatalf("answered with %v, %v", h.Type, err)
	}
}

// vertices is the id of the vertex buffer of fill3D.
const vertices = 100

// fill3D draws a 3D resource red, and then its lower half, as GL counts rows, blue. GL's
// first row is the picture's top one, or with virgl.FlagY0Top the bottom one.
func (s *served) fill3D(id, w, h, flags uint32) {
	s.t.Helper()
	s.create3D(&virtiogpu.ResourceCreate3D{ResourceID: id, Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8X8, Bind: virglcmd.BindRenderTarget,
		Width: w, Height: h, Depth: 1, ArraySize: 1, Flags: flags})
	var b virglcmd.Builder
	blue := [4]float32{0, 0, 1, 1}
	quad := virglcmd.AppendVertices(nil, virglcmd.Quad(blue, blue)...)
	b.InlineWrite(vertices, 0, virglcmd.Box{W: uint32(len(quad)), H: 1, D: 1}, 0, quad)
	b.Pipeline(virglcmd.HandlesFrom(100*id), id, virglcmd.FormatB8G8R8X8, w, h, vertices, virglcmd.FragmentShader)
	b.Clear(virglcmd.ClearColor0, [4]float32{1, 0, 0, 1}, 0, 0)
	b.SetViewport(w, h/2)
	b.Draw(virglcmd.TriangleStrip, 0, 4)
	stream := b.Bytes()
	s.ok(append((&virtiogpu.Submit3D{CtrlHdr: virtiogpu.CtrlHdr{CtxID: 1}, Size: uint32(len(stream))}).Append(nil), stream...))
}

func (s *served) create3D(c *virtiogpu.ResourceCreate3D) {
	s.t.Helper()
	s.ok(c.Append(nil))
	attach := (&virtiogpu.CtxResource{CtrlHdr: virtiogpu.CtrlHdr{CtxID: 1}, ResourceID: c.ResourceID}).Append(nil)
	binary.LittleEndian.PutUint32(attach, uint32(virtiogpu.CmdCtxAttachResource))
	s.ok(attach)
}

func command(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), args, &stdout, &stderr); code != exitOK {
		t.Fatalf("%v: code %d: %s", args, code, &stderr)
	}
	return stdout.String()
}

// TestOperate runs ls, top and shot on a broker with a real renderer.
func TestOperate(t *testing.T) {
	s := serveProgram(t, "--virgl=on")
	const w, h = 40, 30
	s.ok((&virtiogpu.CtxCreate{CtrlHdr: virtiogpu.CtrlHdr{CtxID: 1}, NLen: 6, Name: [64]byte{'s', 'h', 'o', 't', 27, '!'}}).Append(nil))
	s.create3D(&virtiogpu.ResourceCreate3D{ResourceID: vertices, Target: virglcmd.TargetBuffer, Format: virglcmd.FormatR8, Bind: virglcmd.BindVertexBuffer,
		Width: 1024, Height: 1, Depth: 1, ArraySize: 1})
	s.fill3D(1, w, h, 0)
	s.fill3D(2, w, h, virgl.FlagY0Top)
	whole := virtiogpu.Rect{Width: w, Height: h}
	s.ok((&virtiogpu.SetScanout{ScanoutID: 0, ResourceID: 2, R: whole}).Append(nil))
	s.ok((&virtiogpu.ResourceFlush{ResourceID: 2, R: whole}).Append(nil))
	s.ok((&virtiogpu.ResourceCreate2D{ResourceID: 3, Format: virtiogpu.FormatB8G8R8A8, Width: 64, Height: 64}).Append(nil))

	dir := t.TempDir()
	for i, c := range []struct {
		args []string
		blue int // the first blue row
	}{{[]string{"--resource", "1"}, 0}, {[]string{"--resource", "2"}, h / 2}, {[]string{"--scanout", "0"}, h / 2}, {nil, h / 2}} {
		file := filepath.Join(dir, fmt.Sprintf("%d.png", i))
		text := command(t, append([]string{"shot", "--control", s.control, "-o", file}, c.args...)...)
		if !strings.Contains(text, file) || !strings.Contains(text, "40x30") {
			t.Errorf("shot says %q", text)
		}
		want := image.NewNRGBA(image.Rect(0, 0, w, h))
		for y := range h {
			for x := range w {
				px := color.NRGBA{R: 255, A: 255}
				if y >= c.blue && y < c.blue+h/2 {
					px = color.NRGBA{B: 255, A: 255}
				}
				want.SetNRGBA(x, y, px)
			}
		}
		got, err := golden.ReadPNG(file)
		if err != nil {
			t.Fatal(err)
		}
		golden.Equal(t, fmt.Sprintf("shot %v", c.args), got, want, golden.Tolerance{})
	}
	out := command(t, "shot", "--control", s.control, "-o", "-")
	if _, err := png.Decode(strings.NewReader(out)); err != nil {
		t.Errorf("to the standard output: %v", err)
	}
	st, err := broker.ReadStatus(s.control)
	if err != nil || st.Exports > 1 {
		t.Errorf("shots export: %d, %v", st.Exports, err)
	}

	text := command(t, "ls", "--control", s.control)
	for _, want := range []string{
		"a guest is connected", "SCANOUT  RESOURCE  PART", "0        2         40x30 at 0,0", "1        shot?!  2",
		"1         3d    40x30 ", "3         2d    64x64   ARGB8888",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("ls lacks %q:\n%s", want, text)
		}
	}
	if err := json.Unmarshal([]byte(command(t, "ls", "--json", "--control", s.control)), &st); err != nil || len(st.Resources) != 4 {
		t.Errorf("ls --json: %v, %d resources", err, len(st.Resources))
	}
	text = command(t, "top", "--control", s.control, "--interval", "50ms", "--count", "2")
	if strings.Count(text, "frames/s  dmabuf 0.0") != 2 || !strings.Contains(text, "CONTEXT  SUBMITS/S  SUBMITS  NAME\n1        0.0        2        shot?!") || strings.Contains(text, "\x1b") {
		t.Errorf("top says:\n%s", text)
	}
}

// TestRates: what top shows is what happened, by the second.
func TestRates(t *testing.T) {
	a := broker.Status{Tiers: map[string]uint64{"dmabuf": 100}, BytesCopied: 1e6, Commands: 10, Contexts: []broker.ContextStatus{{ID: 1, Name: "old", Submits: 50}, {ID: 2, Name: "x", Submits: 10}}}
	b := broker.Status{Tiers: map[string]uint64{"dmabuf": 220, "copy": 6}, BytesCopied: 5e6, Commands: 30, Errors: 1, FencesOutstanding: 3,
		Contexts: []broker.ContextStatus{{ID: 1, Name: "new", Submits: 4}, {ID: 2, Name: "x", Submits: 30}}}
	text := ratesOf(&a, &b, 2*time.Second)
	for _, want := range []string{"dmabuf 60.0", "copy 3.0", "copied 2.00 MB/s", "commands/s 10 ", "errors/s 0.5", "3 outstanding", "2        10.0       30       x\n1        2.0        4        new"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if text := ratesOf(&b, &a, time.Second); strings.Contains(text, "e+") || strings.Contains(text, "-") {
		t.Errorf("a broker that was started anew:\n%s", text)
	}
}

func TestOperateUsage(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"ls", "no broker has a control socket", exitUsage},
		{"ls now --control x", `unexpected argument "now"`, exitUsage},
		{"ls --control /nonexistent/x", "connect to control socket /nonexistent/x", exitFailed},
		{"top --control x --interval 0", "--interval 0s: want 10ms", exitUsage},
		{"top --control x --count -1", "--count -1", exitUsage},
		{"shot --control x", "want -o FILE.png", exitUsage},
		{"shot --control x -o y --scanout 0 --resource 1", "want either --scanout N or --resource ID", exitUsage},
		{"shot --control x -o y --scanout -1", "invalid argument", exitUsage},
		{"shot --control /nonexistent/x -o y", "connect to control socket", exitFailed},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(c.args), &stdout, &stderr); code != c.code || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: code %d, %q; want %d and %q", c.args, code, &stderr, c.code, c.want)
		}
	}
	// The only broker of the user is found by itself; of two, one has to be named.
	dir := filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "gpubroker")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"a.control", "b.control"} {
		c, err := broker.ListenControl(filepath.Join(dir, name), func(bool) broker.Status { return broker.Status{Version: name} })
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{"ls"}, &stdout, &stderr)
		if i == 0 && (code != exitOK || !strings.Contains(stdout.String(), "gpubroker a.control")) ||
			i == 1 && (code != exitUsage || !strings.Contains(stderr.String(), "b.control")) {
			t.Errorf("%d brokers: code %d, %q, %q", i+1, code, &stdout, &stderr)
		}
	}
}

package main

import (
	"fmt"
	"image"
	"image/color"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/confine"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// TestSandbox: from inside a worker nothing can be had that it does not need, and it
// renders all the same; so do those that come after it. Without --sandbox each try
// succeeds, or it would prove nothing.
func TestSandbox(t *testing.T) {
	if !confine.Supported() {
		t.Skip("this kernel has no landlock or no seccomp, or not all of it")
	}
	for _, sandbox := range []bool{false, true} {
		t.Run(fmt.Sprintf("sandbox=%t", sandbox), func(t *testing.T) { testSandbox(t, sandbox) })
	}
}

func testSandbox(t *testing.T, sandbox bool) {
	dir := t.TempDir()
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	bus, err := net.Listen("unix", filepath.Join(dir, "bus"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bus.Close() }()
	syslog, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "log"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syslog.Close() }()
	comp := waylandtest.New(t, waylandtest.Config{})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tcp.Close() }()
	abstract, err := net.Listen("unix", fmt.Sprintf("@gpubroker-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = abstract.Close() }()
	other := exec.Command("sleep", "300")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	sock, control := filepath.Join(run, "s"), filepath.Join(run, "c")
	cmd := program(t, "serve", fmt.Sprintf("--sandbox=%t", sandbox), "--virgl=on", "--display", "wayland", "--wayland-display", comp.Socket(),
		"--socket-path", sock, "--control", control)
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%s %s %s %d", tryEnv, dir, tcp.Addr(), abstract.Addr(), other.Process.Pid))
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	worker := func(not int) broker.Status {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			st, err := broker.ReadStatus(control)
			if err == nil && st.PID != not {
				return st
			}
			if time.Now().After(end) {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				t.Fatalf("no status: %v\n%s", err, log)
			}
		}
	}
	st := worker(0)
	g, err := fakeguest.Dial(sock, fakeguest.Config{Profile: vhostusertest.QEMU11B})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Boot(); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	guest := &served{Guest: g, t: t, control: control}
	for i := range 2 {
		before := comp.Frames()
		if i > 0 {
			dead := st.PID
			if err := syscall.Kill(dead, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			st = worker(dead)
		}
		draws(guest)
		comp.WaitFrames(t, len(before)+1)
		if !st.Renderer.GL {
			t.Errorf("worker %d: there is no 3D", i)
		}
		lookConfined(t, st.PID, sandbox)
		lookConfined(t, cmd.Process.Pid, false) // or there would be no next one
	}
	g.Quit()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, log)
	}
	said := log.String()
	for name := range tries {
		yes, no := strings.Count(said, "try "+name+": <nil>\n"), strings.Count(said, "try "+name+": ")
		switch {
		case no != 2: // workers
			t.Errorf("%s: tried %d times", name, no)
		case name == "read environment" && os.Geteuid() == 0:
			t.Log("not looked at: root may read environments, because it has CAP_PERFMON")
		case sandbox && yes > 0:
			t.Errorf("%s: it worked", name)
		case !sandbox && yes < 2 && privileged[name]:
			t.Logf("%s: nobody here may", name)
		case !sandbox && yes < 2:
			t.Errorf("%s: it fails without a sandbox", name)
		}
	}
	if t.Failed() {
		t.Log(said)
	}
}

// draws draws with shaders, which llvmpipe compiles into code and runs, and looks at the
// picture. What the guest had is gone with its worker.
func draws(s *served) {
	s.t.Helper()
	const w, h = 40, 30
	s.ok((&virtiogpu.CtxCreate{CtrlHdr: virtiogpu.CtrlHdr{CtxID: 1}}).Append(nil))
	s.create3D(&virtiogpu.ResourceCreate3D{ResourceID: vertices, Target: virglcmd.TargetBuffer, Format: virglcmd.FormatR8, Bind: virglcmd.BindVertexBuffer,
		Width: 1024, Height: 1, Depth: 1, ArraySize: 1})
	s.fill3D(1, w, h, 0)
	whole := virtiogpu.Rect{Width: w, Height: h}
	s.ok((&virtiogpu.SetScanout{ScanoutID: 0, ResourceID: 1, R: whole}).Append(nil))
	s.ok((&virtiogpu.ResourceFlush{ResourceID: 1, R: whole}).Append(nil))
	file := filepath.Join(s.t.TempDir(), "picture.png")
	command(s.t, "shot", "--control", s.control, "--resource", "1", "-o", file)
	got, err := golden.ReadPNG(file)
	if err != nil {
		s.t.Fatal(err)
	}
	want := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		px := color.NRGBA{R: 255, A: 255}
		if i < w*h/2 {
			px = color.NRGBA{B: 255, A: 255}
		}
		want.SetNRGBA(i%w, i/w, px)
	}
	golden.Equal(s.t, "sandbox", got, want, golden.Tolerance{})
}

// lookConfined asks the kernel about each thread of a process.
func lookConfined(t *testing.T, pid int, want bool) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", pid)
	tasks, err := os.ReadDir(proc + "task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile(proc + "task/" + task.Name() + "/status")
		if err != nil {
			continue // the thread has ended
		}
		if got := strings.Contains(string(status), "\nSeccomp:\t2\n"); got != want {
			t.Errorf("process %d, thread %s: a seccomp filter: %v", pid, task.Name(), got)
		}
		if got := strings.Contains(string(status), "\nNoNewPrivs:\t1\n"); got != want {
			t.Errorf("process %d, thread %s: no_new_privs: %v", pid, task.Name(), got)
		}
	}
	limits, err := os.ReadFile(proc + "limits")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && (f[4] == "1" && f[5] == "1") != want {
			t.Errorf("process %d: %s", pid, line)
		}
	}
}

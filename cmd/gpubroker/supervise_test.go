package main

import (
	"bytes"
	"debug/elf"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// logBuffer is a log that several processes write.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestSupervise: systemd hears of the first worker; a guest goes on when its worker is
// killed; SIGTERM ends both processes, well, and the socket is gone.
func TestSupervise(t *testing.T) {
	for _, virgl := range []string{"off", "on"} {
		t.Run("virgl="+virgl, func(t *testing.T) { testSupervise(t, virgl) })
	}
}

func testSupervise(t *testing.T, virgl string) {
	dir := t.TempDir()
	sock, control := filepath.Join(dir, "s"), filepath.Join(dir, "c")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ready.Close() }()
	cmd := program(t, "serve", "--quarantine", "0", "--virgl="+virgl, "--display", "headless", "--socket-path", sock, "--control", control)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	heard := func(want string) {
		t.Helper()
		buf := make([]byte, 64)
		if err := ready.SetReadDeadline(time.Now().Add(50 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := ready.Read(buf); err != nil || string(buf[:n]) != want {
			t.Fatalf("systemd hears %q, %v, want %q\n%s", buf[:n], err, want, log)
		}
	}
	heard("READY=1")
	qemu, err := vhostusertest.Dial(sock)
	if err != nil {
		t.Fatal(err)
	}
	g, err := fakeguest.New(qemu, fakeguest.Config{Profile: vhostusertest.QEMU11B})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Quit()
	if err := g.Boot(); err != nil {
		t.Fatal(err)
	}
	resp := make([]byte, 512)
	ask := func(cmd []byte, want virtiogpu.Type) {
		t.Helper()
		n, err := g.Do(cmd, resp)
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		var h virtiogpu.CtrlHdr
		if err := h.Decode(resp[:n]); err != nil || h.Type != want {
			t.Fatalf("answered with %v, %v, want %v\n%s", h.Type, err, want, log)
		}
	}
	ask((&virtiogpu.ResourceCreate2D{ResourceID: 1, Format: virtiogpu.FormatB8G8R8X8, Width: 8, Height: 8}).Append(nil), virtiogpu.RespOKNoData)
	for range 3 {
		st, err := broker.ReadStatus(control)
		if err != nil {
			t.Fatal(err)
		}
		if st.PID == cmd.Process.Pid || st.PID == 0 || st.Renderer.GL != (virgl == "on") {
			t.Fatalf("process %d serves with GL %v; the supervisor is %d", st.PID, st.Renderer.GL, cmd.Process.Pid)
		}
		if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		ask((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil), virtiogpu.RespOKDisplayInfo)
		ask((&virtiogpu.ResourceCreate2D{ResourceID: 1, Format: virtiogpu.FormatB8G8R8X8, Width: 8, Height: 8}).Append(nil), virtiogpu.RespErrInvalidResourceID)
	}
	maps := mapsOf(t, cmd.Process.Pid)
	for _, library := range []string{"virglrenderer", "libEGL", "libgallium", "_dri.so"} {
		if strings.Contains(maps, library) && !linked(t, library) {
			t.Errorf("the supervisor has loaded the renderer: %s", library)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	heard("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, log)
	}
	if !strings.Contains(log.String(), "summary") {
		t.Errorf("the worker did not end in order:\n%s", log)
	}
	for _, path := range []string{sock, control} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

func mapsOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "maps"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSuperviseFD: with a connected socket both processes end when QEMU leaves.
func TestSuperviseFD(t *testing.T) {
	ours, theirs, err := vhostusertest.Pair()
	if err != nil {
		t.Fatal(err)
	}
	cmd := program(t, "--fd=3", "--supervise")
	file := os.NewFile(uintptr(theirs.Disown()), "socket")
	cmd.ExtraFiles = []*os.File{file}
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	talk(t, ours, false)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after QEMU left: %v\n%s", err, log)
	}
	if !strings.Contains(log.String(), "summary") {
		t.Errorf("no summary in the log:\n%s", log)
	}
}

// linked reports whether the program needs a library to start at all, as a build with cgo
// and the tag egl does.
func linked(t *testing.T, library string) bool {
	t.Helper()
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	needs, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(needs, func(n string) bool { return strings.Contains(n, library) })
}

// TestSuperviseFails: a worker that cannot start ends its supervisor with its code, and a
// supervisor that is killed takes its worker along.
func TestSuperviseFails(t *testing.T) {
	dir := t.TempDir()
	sock, control := filepath.Join(dir, "s"), filepath.Join(dir, "c")
	cmd := program(t, "serve", "--virgl=on", "--render-node", "/nonexistent", "--display", "headless", "--socket-path", sock)
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed || strings.Count(string(out), "start 3D renderer") != 1 {
		t.Errorf("code %d (%v), want %d and one message\n%s", code, err, exitFailed, out)
	}
	cmd = program(t, "serve", "--virgl=off", "--display", "headless", "--socket-path", sock, "--control", control)
	log := &logBuffer{}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var st broker.Status
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if st, err = broker.ReadStatus(control); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no status: %v\n%s", err, log)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // ends when the worker has closed the log, too, a moment before it has ended
	for end := time.Now().Add(30 * time.Second); syscall.Kill(st.PID, 0) == nil && !zombie(st.PID); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the worker outlives its supervisor\n%s", log)
		}
	}
}

// zombie reports whether a process has ended and nobody asked how.
func zombie(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err != nil || strings.Contains(string(text), ") Z ")
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/confine"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// TestSandboxApps: a guest's program reaches the compositor through a worker in a sandbox,
// by a security context that the worker makes.
func TestSandboxApps(t *testing.T) {
	if !confine.Supported() {
		t.Skip("this kernel has no landlock or no seccomp, or not all of it")
	}
	dir := t.TempDir()
	guest := filepath.Join(dir, "gpubroker-guest")
	build := exec.Command("go", "build", "-o", guest, "../gpubroker-guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	comp := waylandtest.New(t, waylandtest.Config{Security: true})
	at := func(name string) string { return filepath.Join(dir, name) }
	cmd := program(t, "serve", "--sandbox", "--virgl=off", "--display", "none", "--socket-path", at("s"),
		"--apps", "--apps-display", comp.Socket(), "--apps-socket", at("a"), "--vm-name", "work")
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // if the test failed before their end
	waylandtest.Eventually(t, "the socket for guests", func() bool { return lab.Listening(at("a")) })
	inside := exec.Command(guest, "serve", "--transport", "unix:"+at("a"), "--display", at("display"))
	inside.Stdout, inside.Stderr = log, log
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inside.Process.Kill() })
	for range 2 { // the second by the context that is there
		globals := 0
		var conn *wire.Conn
		waylandtest.Eventually(t, "the guest's display", func() bool {
			var err error
			conn, err = wire.Dial(at("display"))
			return err == nil
		})
		proto.WlDisplay(wire.DisplayID).GetRegistry(&conn.Out, 2)
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); globals == 0; {
			if time.Now().After(end) {
				t.Fatalf("no globals\n%s", log)
			}
			polls := []unix.PollFd{{Fd: int32(conn.FD()), Events: unix.POLLIN}}
			_, _ = unix.Poll(polls, 100)
			if _, err := conn.Receive(); err != nil {
				t.Fatalf("%v\n%s", err, log)
			}
			for {
				m, ok, err := conn.Next()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				if m.Object == 2 && m.Opcode == 0 {
					globals++
				}
			}
		}
		if got := comp.Sandboxes(); len(got) == 0 || got[0] != (waylandtest.Sandbox{Engine: "gpubroker", App: "work", Instance: "work"}) {
			t.Errorf("security contexts %+v", got)
		}
		_ = conn.Close()
	}
	for _, c := range []*exec.Cmd{inside, cmd} {
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v\n%s", err, log)
		}
	}
	for _, v := range cmd.Env {
		if runtime, ok := strings.CutPrefix(v, "XDG_RUNTIME_DIR="); ok {
			if left, err := filepath.Glob(runtime + "/gpubroker-*"); err != nil || len(left) > 0 {
				t.Errorf("left: %q, %v", left, err)
			}
		}
	}
}

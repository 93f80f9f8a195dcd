package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
)

// activate runs gpubroker as systemd does: listening sockets from descriptor 3 on, named.
func activate(t *testing.T, names string, socks []*net.UnixListener, env []string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	like := program(t, args...)
	// The variable names the process that the sockets are for; exec keeps its number.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, like.Path}, args...)...)
	cmd.Env = append(append(like.Env, "LISTEN_FDNAMES="+names, "LISTEN_FDS="+string(rune('0'+len(socks)))), env...)
	for _, l := range socks {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, log
}

func unixListener(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// TestActivation: QEMU's connection waits in a socket that was there before gpubroker;
// when gpubroker ends the socket stays.
func TestActivation(t *testing.T) {
	dir := t.TempDir()
	gpu, input := filepath.Join(dir, "gpu"), filepath.Join(dir, "input")
	lg, li := unixListener(t, gpu), unixListener(t, input)
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ready.Close() }()
	qemu, err := vhostusertest.Dial(gpu) // before anybody accepts
	if err != nil {
		t.Fatal(err)
	}
	keyboard, err := vhostusertest.Dial(input)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = keyboard.Close() }()
	cmd, log := activate(t, "input:gpu", []*net.UnixListener{li, lg}, []string{"NOTIFY_SOCKET=" + filepath.Join(dir, "notify")},
		"serve", "--display", "headless", "--virgl=off", "--log-level", "debug")
	talk(t, qemu, false)
	buf := make([]byte, 64)
	if err := ready.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := ready.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("systemd hears %q, %v", buf[:n], err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, log)
	}
	if n, err := ready.Read(buf); err != nil || string(buf[:n]) != "STOPPING=1" {
		t.Errorf("systemd hears %q, %v", buf[:n], err)
	}
	if strings.Count(log.String(), "front-end connected") != 2 {
		t.Errorf("not both sockets were served:\n%s", log)
	}
	for _, path := range []string{gpu, input} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("systemd's socket was removed: %v", err)
		}
	}
}

func TestActivationRefuses(t *testing.T) {
	dir := t.TempDir()
	a, b := unixListener(t, filepath.Join(dir, "a")), unixListener(t, filepath.Join(dir, "b"))
	for _, c := range []struct {
		names string
		socks []*net.UnixListener
		args  []string
		code  int
		want  string
	}{
		{"gpu:gpu", []*net.UnixListener{a, b}, nil, exitFailed, `named "gpu": want FileDescriptorName`},
		{"gpu:tv", []*net.UnixListener{a, b}, nil, exitFailed, `named "tv"`},
		{"gpu", []*net.UnixListener{a}, []string{"--socket-path", filepath.Join(dir, "c")}, exitUsage, "want one of"},
		{"input", []*net.UnixListener{a}, nil, exitUsage, "want one of"},
		{"gpu:input", []*net.UnixListener{a, b}, []string{"--input-socket", filepath.Join(dir, "c")}, exitFailed, "either --input-socket or systemd's"},
	} {
		cmd, log := activate(t, c.names, c.socks, nil, append([]string{"serve", "--display", "headless", "--virgl=off"}, c.args...)...)
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(log.String(), c.want) {
			t.Errorf("%s %v: code %d, %s; want %d and %q", c.names, c.args, code, log, c.code, c.want)
		}
	}
	// Sockets that are meant for another process are left alone.
	cmd := program(t, "serve", "--display", "headless")
	cmd.Env = append(cmd.Env, "LISTEN_PID=1", "LISTEN_FDS=1")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "want either --socket-path PATH or --fd N") {
		t.Errorf("%v: %s", err, out)
	}
}

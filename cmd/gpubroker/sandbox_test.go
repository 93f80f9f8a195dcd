package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/confine"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
)

// tryEnv has a worker of a test try what a program could try that has taken it over. Its
// value is a folder with a file, the address of a TCP server, and a process.
const tryEnv = "GPUBROKER_TEST_TRY"

// tries is what it tries, by name.
var tries = map[string]func(dir, addr string, pid int) error{
	"read a file": func(dir, _ string, _ int) error { _, err := os.ReadFile(filepath.Join(dir, "secret")); return err },
	"write a file": func(dir, _ string, _ int) error {
		return os.WriteFile(filepath.Join(dir, "new"), nil, 0o600)
	},
	"write beside its socket": func(dir, _ string, _ int) error {
		return os.WriteFile(filepath.Join(dir, "run", "new"), nil, 0o600)
	},
	"list the root":    func(string, string, int) error { _, err := os.ReadDir("/"); return err },
	"run a program":    func(string, string, int) error { return exec.Command("/bin/true").Run() },
	"connect":          func(_, addr string, _ int) error { return dialed(net.Dial("tcp", addr)) },
	"listen":           func(string, string, int) error { return listening(plainListen()) },
	"kill another":     func(_, _ string, pid int) error { return syscall.Kill(pid, 0) },
	"read its memory":  func(_, _ string, pid int) error { return opened(os.Open(fmt.Sprintf("/proc/%d/mem", pid))) },
	"read environment": func(_, _ string, pid int) error { return environ(pid) },
}

// plainListen listens with TCP: landlock does not look at MPTCP, which is Go's default.
func plainListen() (net.Listener, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), "tcp", "127.0.0.1:0")
}

// environ reads another process' environment, which is empty for who may not.
func environ(pid int) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err == nil && len(text) == 0 {
		err = os.ErrPermission
	}
	return err
}

func dialed(c net.Conn, err error) error {
	if err == nil {
		_ = c.Close()
	}
	return err
}

func listening(l net.Listener, err error) error {
	if err == nil {
		_ = l.Close()
	}
	return err
}

func opened(f *os.File, err error) error {
	if err == nil {
		_ = f.Close()
	}
	return err
}

// tryAll is the worker's part of TestSandbox: it writes what came out to its log.
func tryAll() {
	where := os.Getenv(tryEnv)
	if where == "" {
		return
	}
	changeConfig = func(*broker.Config) {
		f := strings.Split(where, " ")
		pid, _ := strconv.Atoi(f[2])
		for name, try := range tries {
			fmt.Fprintf(os.Stderr, "try %s: %v\n", name, try(f[0], f[1], pid))
		}
		status, _ := os.ReadFile("/proc/self/status")
		fmt.Fprintf(os.Stderr, "try no_new_privs: %v\n", strings.Contains(string(status), "NoNewPrivs:\t1"))
	}
}

// TestSandbox: from inside a worker nothing can be had that it does not need, and it
// renders all the same. Without --sandbox each try succeeds, or it would prove nothing.
func TestSandbox(t *testing.T) {
	if !confine.Supported() {
		t.Skip("this kernel has no landlock, or not all of it")
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
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	sock, control := filepath.Join(run, "s"), filepath.Join(run, "c")
	cmd := program(t, "serve", "--supervise", fmt.Sprintf("--sandbox=%t", sandbox), "--virgl=on", "--display", "headless", "--socket-path", sock, "--control", control)
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%s %s %d", tryEnv, dir, server.Addr(), os.Getpid()))
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var st broker.Status
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if st, err = broker.ReadStatus(control); err == nil {
			break
		}
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("no status: %v\n%s", err, log)
		}
	}
	if !st.Renderer.GL {
		t.Error("there is no 3D")
	}
	qemu, err := vhostusertest.Dial(sock)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, qemu, true)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, log)
	}
	said := log.String()
	for name := range tries {
		if name == "read environment" && os.Geteuid() == 0 {
			t.Log("not looked at: root may read environments, because it has CAP_PERFMON")
			continue
		}
		if worked := strings.Contains(said, "try "+name+": <nil>\n"); worked == sandbox {
			t.Errorf("%s: %v with sandbox %v", name, worked, sandbox)
		}
	}
	if !strings.Contains(said, fmt.Sprintf("try no_new_privs: %t\n", sandbox)) {
		t.Error("no_new_privs is wrong")
	}
	if t.Failed() {
		t.Log(said)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// xTime is how long an X server may take to start.
const xTime = 20 * time.Second

// missingX says what to install; %s is what about the other way.
const missingX = `xwayland-satellite is not installed, which X programs in windows of their own need
(https://github.com/Supreeeme/xwayland-satellite; some distributions have a package of
that name, else: cargo install --git that address). It needs Xwayland, too.
%s`

// xServer is an X server that this process started.
type xServer struct {
	display string
	cmd     *exec.Cmd
	done    chan struct{}
}

// startX starts an X server that is a client of the display in env.
func startX(ctx context.Context, env []string, kind, geometry string, logs io.Writer) (*xServer, error) {
	_, errX := exec.LookPath("Xwayland")
	if kind == "rootful" {
		if errX != nil {
			return nil, errors.New("--x11=rootful needs Xwayland, which is not installed (Debian: apt install xwayland)")
		}
		return startServer(ctx, env, logs, "Xwayland", "-geometry", geometry, "-noreset")
	}
	if _, err := exec.LookPath("xwayland-satellite"); err != nil {
		rootful := "--x11=rootful would show all X windows in one; it needs Xwayland, which is not installed\neither (Debian: apt install xwayland)."
		if errX == nil {
			rootful = "--x11=rootful works now: Xwayland is installed and shows all X windows in one."
		}
		return nil, fmt.Errorf(missingX, rootful)
	}
	if errX != nil {
		return nil, errors.New("xwayland-satellite is installed, but Xwayland, which it needs, is not (Debian: apt install xwayland)")
	}
	return startServer(ctx, env, logs, "xwayland-satellite")
}

// startServer starts an X server under the first free number and waits until it
// answers.
func startServer(ctx context.Context, env []string, logs io.Writer, name string, args ...string) (*xServer, error) {
	number, err := freeX()
	if err != nil {
		return nil, err
	}
	x := &xServer{display: fmt.Sprintf(":%d", number), done: make(chan struct{})}
	x.cmd = exec.CommandContext(ctx, name, append([]string{x.display}, args...)...)
	x.cmd.Env = env
	x.cmd.Stdout, x.cmd.Stderr = logs, logs
	x.cmd.Cancel = func() error { return x.cmd.Process.Signal(syscall.SIGTERM) }
	if err := x.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = x.cmd.Wait(); close(x.done) }()
	deadline := time.After(xTime)
	for {
		if c, err := net.Dial("unix", xSocket(number)); err == nil {
			_ = c.Close()
			return x, nil
		}
		select {
		case <-x.done:
			return nil, fmt.Errorf("%s %s ended at once: %v", name, strings.Join(args, " "), x.cmd.ProcessState)
		case <-deadline:
			x.stop()
			return nil, fmt.Errorf("%s did not start within %v", name, xTime)
		case <-ctx.Done():
			x.stop()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (x *xServer) stop() {
	_ = x.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-x.done:
	case <-time.After(5 * time.Second):
		_ = x.cmd.Process.Kill()
		<-x.done
	}
}

func xSocket(number int) string { return fmt.Sprintf("/tmp/.X11-unix/X%d", number) }

// freeX finds a number that no X server has.
func freeX() (int, error) {
	const most = 64
	for n := range most {
		if exists(xSocket(n)) || exists(fmt.Sprintf("/tmp/.X%d-lock", n)) {
			continue
		}
		return n, nil
	}
	return 0, fmt.Errorf("%d X displays exist, none is free", most)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

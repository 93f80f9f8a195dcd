package linkbench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
)

// way is a way from a client to the compositor.
type way struct {
	name    string
	display string // where its clients connect
	procs   []*proc
}

func (w *way) cpu() (time.Duration, error) {
	var pids []int
	for _, p := range w.procs {
		pids = append(pids, p.cmd.Process.Pid)
	}
	return cpuTime(pids...)
}

func (w *way) stop() {
	for _, p := range w.procs {
		p.stop()
	}
}

// proc is a program that carries clients.
type proc struct {
	cmd     *exec.Cmd
	release func()
	done    chan struct{}
	mu      sync.Mutex
	said    bytes.Buffer // guarded by mu
}

func (p *proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.said.Len() < 64<<10 {
		p.said.Write(b)
	}
	return len(b), nil
}

func (p *proc) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// start runs a program and waits for the socket that it makes.
func (w *way) start(ctx context.Context, cmd *exec.Cmd, socket string) error {
	p := &proc{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	var err error
	if p.release, err = lab.Start(cmd); err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	go func() {
		_ = cmd.Wait()
		p.release()
		close(p.done)
	}()
	w.procs = append(w.procs, p)
	for end := time.Now().Add(startTime); ; {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s: %s ended\n%s", w.name, cmd.Args[0], p.text())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: no socket %s after %v\n%s", w.name, socket, startTime, p.text())
		}
	}
}

// startTime is how long a program may take to make its socket.
const startTime = 30 * time.Second

func (p *proc) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// gpubroker is the broker's listener for apps and gpubroker-guest.
func gpubroker(ctx context.Context, dir, bin, compositor string) (*way, error) {
	w := &way{name: "gpubroker", display: filepath.Join(dir, "guest")}
	apps := filepath.Join(dir, "apps")
	host := program(filepath.Join(bin, "gpubroker"), "serve", "--socket-path", filepath.Join(dir, "gpu"), "--display", "none", "--virgl=off",
		"--apps", "--apps-display", compositor, "--apps-socket", apps, "--log-level", "warn")
	if err := w.start(ctx, host, apps); err != nil {
		return w, err
	}
	guest := program(filepath.Join(bin, "gpubroker-guest"), "serve", "--display", w.display, "--transport", "unix:"+apps, "--log-level", "warn")
	guest.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
	return w, w.start(ctx, guest, w.display)
}

func program(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// waypipe is the lab root's waypipe, with a way of compressing or as it comes.
func waypipe(ctx context.Context, root *lab.Root, name, dir, compositor string, args ...string) (*way, error) {
	w := &way{name: name, display: filepath.Join(dir, "guest")}
	link := filepath.Join(dir, "link")
	run := func(more ...string) *exec.Cmd {
		argv := append([]string{"waypipe", "--no-gpu", "--socket", link}, args...)
		return root.Command(context.Background(), lab.CommandOptions{
			Env: []string{"XDG_RUNTIME_DIR=" + dir, "WAYLAND_DISPLAY=" + compositor},
		}, append(argv, more...)...)
	}
	if err := w.start(ctx, run("client"), link); err != nil {
		return w, err
	}
	return w, w.start(ctx, run("--display", "guest", "server", "--", "sleep", "infinity"), w.display)
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// lineup knows how each back-end is started.
type lineup struct {
	root         *lab.Root
	ours, theirs string
}

// The back-ends. A descriptor is how libvirt gives them the front-end's socket; with it
// nobody has to look whether they listen yet.
const (
	ours     = "gpubroker"
	theirs   = "vhost-user-gpu"
	headless = "headless"     // gpubroker without a display: the queue and the one copy alone
	withGL   = "gpubroker 3D" // gpubroker with virglrenderer
	echo     = "echo"
	nothing  = "sandbox" // a program that does nothing, in the same sandbox
)

func (l lineup) command(ctx context.Context, name string) (cmd *exec.Cmd, comm string, err error) {
	opt := lab.CommandOptions{Env: []string{"LIBGL_ALWAYS_SOFTWARE=1"}, Bind: []string{filepath.Dir(l.ours)}}
	serve := []string{l.ours, "serve", "--fd", "3", "--log-level", "warn"}
	switch name {
	case ours:
		return l.root.Command(ctx, opt, append(serve, "--display", "qemu", "--qemu-dmabuf", "off", "--virgl=off")...), "gpubroker", nil
	case headless:
		return l.root.Command(ctx, opt, append(serve, "--display", "headless", "--virgl=off")...), "gpubroker", nil
	case withGL:
		return l.root.Command(ctx, opt, append(serve, "--display", "headless", "--virgl=on")...), "gpubroker", nil
	case theirs:
		return l.root.Command(ctx, opt, l.theirs, "--fd=3"), "vhost-user-gpu", nil
	case nothing:
		return l.root.Command(ctx, opt, "true"), "true", nil
	case echo:
		self, err := os.Executable()
		return exec.CommandContext(ctx, self, "-echo"), filepath.Base(self), err
	}
	return nil, "", fmt.Errorf("no back-end %q", name)
}

// process is a running back-end.
type process struct {
	name, comm string
	cmd        *exec.Cmd
	kill       context.CancelFunc
	log        logBuffer
	done       chan struct{}
	pid        int
}

// spawn starts a back-end. sock, which may be nil, is its descriptor 3 and closed here.
func (l lineup) spawn(name string, sock *dmabuf.FD) (*process, error) {
	ctx, kill := context.WithCancel(context.Background())
	cmd, comm, err := l.command(ctx, name)
	if err != nil {
		kill()
		_ = sock.Close()
		return nil, err
	}
	p := &process{name: name, comm: comm[:min(len(comm), 15)], cmd: cmd, kill: kill, done: make(chan struct{})} // the kernel cuts names
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	if sock != nil {
		file := os.NewFile(uintptr(sock.Disown()), "back-end socket")
		defer func() { _ = file.Close() }()
		cmd.ExtraFiles = []*os.File{file}
	}
	release, err := lab.Start(cmd)
	if err != nil {
		kill()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait() // says that it was killed
		release()
		close(p.done)
	}()
	return p, nil
}

// dial makes the socket of a back-end and starts it; the other end is the caller's.
func (l lineup) dial(name string) (*process, *dmabuf.FD, error) {
	front, back, err := vhostusertest.Pair()
	if err != nil {
		return nil, nil, err
	}
	p, err := l.spawn(name, back)
	if err != nil {
		_ = front.Close()
		return nil, nil, err
	}
	return p, front, nil
}

// stop waits a moment for a process whose front-end has hung up, and kills it then.
func (p *process) stop() {
	select {
	case <-p.done:
	case <-time.After(3 * time.Second):
		if pid := p.PID(); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		p.kill()
		<-p.done
	}
	p.kill()
}

func (p *process) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w\n%s", p.name, err, p.log.String())
}

// PID is the program's own process id, below the sandbox's; 0 if it is not there.
func (p *process) PID() int {
	if p.pid != 0 {
		return p.pid
	}
	for pid := p.cmd.Process.Pid; ; {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if strings.TrimSpace(string(name)) == p.comm {
			p.pid = pid
			return pid
		}
		kids, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		fields := strings.Fields(string(kids))
		if err != nil || len(fields) == 0 {
			return 0
		}
		if pid, err = strconv.Atoi(fields[0]); err != nil {
			return 0
		}
	}
}

// all are the program's own processes: gpubroker's are two, the supervisor and its worker.
func (p *process) all() []int {
	pid := p.PID()
	return append([]int{pid}, lab.Children(pid)...)
}

// cpu is the time that its threads have run.
func (p *process) cpu() (sum time.Duration) {
	for _, pid := range p.all() {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, task := range tasks {
			text, _ := os.ReadFile(task)
			if f := strings.Fields(string(text)); len(f) > 0 {
				ns, _ := strconv.ParseInt(f[0], 10, 64)
				sum += time.Duration(ns)
			}
		}
	}
	return sum
}

// Memory is what is resident, in KiB. Guest memory that the back-end has touched counts
// as shared; what two processes share counts twice.
type Memory struct {
	RSS    int `json:"rss_kib"`
	Anon   int `json:"anon_kib"`   // its own
	File   int `json:"file_kib"`   // programs and libraries
	Shared int `json:"shared_kib"` // the guest's memory, memfds
}

func (p *process) memory() (sum Memory, err error) {
	for _, pid := range p.all() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return sum, fmt.Errorf("memory of %s: %w", p.name, err)
		}
		m := parseMemory(string(text))
		sum.RSS, sum.Anon, sum.File, sum.Shared = sum.RSS+m.RSS, sum.Anon+m.Anon, sum.File+m.File, sum.Shared+m.Shared
	}
	return sum, nil
}

func parseMemory(status string) (m Memory) {
	to := map[string]*int{"VmRSS:": &m.RSS, "RssAnon:": &m.Anon, "RssFile:": &m.File, "RssShmem:": &m.Shared}
	for line := range strings.Lines(status) {
		if f := strings.Fields(line); len(f) >= 2 && to[f[0]] != nil {
			*to[f[0]], _ = strconv.Atoi(f[1])
		}
	}
	return m
}

// logBuffer keeps the first part of what a program says.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

const maxLog = 64 << 10

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() < maxLog {
		l.buf.Write(p)
	}
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

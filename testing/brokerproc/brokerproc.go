// Package brokerproc runs gpubroker as its users do, as a program of its own,
// inside the lab root (or a guest of it), and asks it for its status.
package brokerproc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// Build compiles cmd/gpubroker without cgo to the file out. It runs in the
// module's folder.
func Build(ctx context.Context, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "github.com/gpubroker/gpubroker/cmd/gpubroker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build gpubroker: %w\n%s", err, text)
	}
	return nil
}

// Options say how to run it.
type Options struct {
	Binary string    // what Build made
	Args   []string  // after serve; the sockets are added
	Env    []string  // of the broker
	Bind   []string  // host folders that it must see besides /tmp
	Log    io.Writer // its log; may be nil
	// NoGuest leaves the socket for QEMU out: Args name another one.
	NoGuest bool
	// Deadly says that workers will be killed.
	Deadly bool
}

// Broker is a running gpubroker serve.
type Broker struct {
	Socket  string // of vhost-user, for QEMU
	Control string

	dir     string
	deadly  bool
	cmd     *exec.Cmd
	release func()
	done    chan struct{}
	err     error // valid once done is closed
	tail    *tail
}

// startTimeout bounds the start: virglrenderer on llvmpipe in a nested guest is
// slow.
const startTimeout = 90 * time.Second

// Start runs the broker and waits until it listens. The caller calls Stop.
func Start(ctx context.Context, root *lab.Root, o Options) (*Broker, error) {
	dir, err := os.MkdirTemp("", "gpubroker-")
	if err != nil {
		return nil, fmt.Errorf("start gpubroker: %w", err)
	}
	b := &Broker{Socket: filepath.Join(dir, "gpu.sock"), Control: filepath.Join(dir, "control.sock"), dir: dir, deadly: o.Deadly,
		done: make(chan struct{}), tail: &tail{next: o.Log}}
	argv := []string{o.Binary, "serve", "--control", b.Control}
	if !o.NoGuest {
		argv = append(argv, "--socket-path", b.Socket)
	}
	argv = append(argv, o.Args...)
	b.cmd = root.Command(context.Background(), lab.CommandOptions{
		Env:  append([]string{"LIBGL_ALWAYS_SOFTWARE=1"}, o.Env...),
		Bind: append([]string{filepath.Dir(o.Binary)}, o.Bind...),
	}, argv...)
	b.cmd.Stdout, b.cmd.Stderr = b.tail, b.tail
	if b.release, err = lab.Start(b.cmd); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("start gpubroker: %w", err)
	}
	go func() {
		b.err = b.cmd.Wait()
		b.release()
		close(b.done)
	}()
	end := time.Now().Add(startTimeout)
	for {
		if lab.Listening(b.Control) {
			return b, nil
		}
		select {
		case <-b.done:
			_ = os.RemoveAll(dir)
			return nil, fmt.Errorf("gpubroker ended while starting: %w\n%s", b.err, b.Log())
		case <-ctx.Done():
			b.kill()
			return nil, fmt.Errorf("start gpubroker: %w\n%s", ctx.Err(), b.Log())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(end) {
			b.kill()
			return nil, fmt.Errorf("gpubroker did not listen within %v\n%s", startTimeout, b.Log())
		}
	}
}

// Alive reports whether it runs.
func (b *Broker) Alive() bool {
	select {
	case <-b.done:
		return false
	default:
		return true
	}
}

// Kill ends it at once, as a crash does. Stop is not needed afterwards.
func (b *Broker) Kill() {
	// The worker first: without its supervisor it would end in good order.
	for _, pid := range []int{b.PID(), b.Program()} {
		if pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL) // a sandbox around it then ends by itself
		}
	}
	b.kill()
}

// Log returns the last lines that it wrote.
func (b *Broker) Log() string { return b.tail.String() }

// Status asks for the counters and the resource table.
func (b *Broker) Status() (broker.Status, error) { return broker.ReadStatus(b.Control) }

// Stop ends it as a user would, with SIGTERM, and returns its summary line. An
// end that is not clean within a few seconds is an error, and so is a worker that died
// before, unless that was meant.
func (b *Broker) Stop() (summary string, err error) {
	defer func() { _ = os.RemoveAll(b.dir) }()
	select {
	case <-b.done:
		return "", fmt.Errorf("gpubroker had ended before: %w\n%s", orClean(b.err), b.Log())
	default:
	}
	pid := b.Program()
	if pid == 0 || syscall.Kill(pid, syscall.SIGTERM) != nil {
		b.kill()
		return "", errors.New("gpubroker: no process to end")
	}
	select {
	case <-b.done:
	case <-time.After(20 * time.Second):
		for _, pid := range []int{b.PID(), pid} {
			_ = syscall.Kill(pid, syscall.SIGQUIT) // the runtime prints every goroutine
		}
		time.Sleep(500 * time.Millisecond)
		b.kill()
		return "", fmt.Errorf("gpubroker did not end within 20 s of SIGTERM\n%s", b.Log())
	}
	if b.err != nil {
		return "", fmt.Errorf("gpubroker: %w\n%s", b.err, b.Log())
	}
	if n := b.tail.count(); n > 0 && !b.deadly {
		return "", fmt.Errorf("%d workers of gpubroker died\n%s", n, b.Log())
	}
	for line := range strings.Lines(b.tail.String()) {
		if strings.Contains(line, "summary") {
			summary = strings.TrimSpace(line)
		}
	}
	return summary, nil
}

func orClean(err error) error {
	if err == nil {
		return errors.New("exit code 0")
	}
	return err
}

func (b *Broker) kill() {
	_ = b.cmd.Process.Kill()
	<-b.done
	_ = os.RemoveAll(b.dir)
}

// tail keeps the last part of a log.
type tail struct {
	mu   sync.Mutex
	next io.Writer // guarded by mu
	buf  []byte    // guarded by mu
	died int       // guarded by mu: how many workers, as the supervisor says
}

const tailBytes = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	t.died += bytes.Count(p, []byte("worker died")) // a line is written in one piece
	if len(t.buf) > 2*tailBytes {
		t.buf = append([]byte(nil), t.buf[len(t.buf)-tailBytes:]...)
	}
	if t.next != nil {
		_, _ = t.next.Write(p)
	}
	return len(p), nil
}

func (t *tail) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.died
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

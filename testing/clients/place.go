package clients

import (
	"bytes"
	"context"
	"os/exec"
	"sync"

	"github.com/gpubroker/gpubroker/testing/lab"
)

// Place is where clients run. Its clients' windows go to one compositor.
type Place interface {
	// Name says how the clients reach the compositor: "direct" or a transport.
	Name() string
	// Start runs a shell script until it ends or is stopped.
	Start(ctx context.Context, script string) (Client, error)
	// Has says whether its clients find there what they need, or why not.
	Has(n Need) (ok bool, why string)
	// Slow is how many times longer than on this machine things take, at least 1.
	Slow() int
}

// Client is a running client. Its methods are for one goroutine.
type Client interface {
	// Ended reports whether it has ended by itself, and its exit code then.
	Ended(ctx context.Context) (ended bool, code int, err error)
	// Log returns what it wrote so far, both streams.
	Log() string
	// Stop ends it, with all its children.
	Stop()
}

// local is a client that runs on this machine, in the lab's sandbox.
type local struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	out    *buffer
	done   chan struct{} // closed when it has ended
}

// startLocal runs a shell script in the sandbox.
func startLocal(root *lab.Root, opt lab.CommandOptions, script string) (*local, error) {
	ctx, cancel := context.WithCancel(context.Background())
	l := &local{cancel: cancel, out: &buffer{}, done: make(chan struct{})}
	l.cmd = root.Command(ctx, opt, "bash", "-c", preamble+script)
	l.cmd.Stdout, l.cmd.Stderr = l.out, l.out
	release, err := lab.Start(l.cmd)
	if err != nil {
		cancel()
		return nil, err
	}
	go func() {
		_ = l.cmd.Wait() // the exit code is asked for
		release()
		close(l.done)
	}()
	return l, nil
}

func (l *local) Ended(context.Context) (bool, int, error) {
	select {
	case <-l.done:
		return true, l.cmd.ProcessState.ExitCode(), nil
	default:
		return false, 0, nil
	}
}

func (l *local) Log() string { return l.out.String() }

func (l *local) Stop() {
	l.cancel()
	<-l.done
}

// Direct is the compositor's own socket on this machine: what others are compared
// with.
type Direct struct {
	Root       *lab.Root
	Compositor *Compositor
}

// Name implements Place.
func (d *Direct) Name() string { return "direct" }

// Slow implements Place.
func (d *Direct) Slow() int { return 1 }

// Start implements Place.
func (d *Direct) Start(_ context.Context, script string) (Client, error) {
	return startLocal(d.Root, lab.CommandOptions{
		Env:  append(d.Compositor.Env(), "LIBGL_ALWAYS_SOFTWARE=1"),
		Bind: []string{d.Compositor.RuntimeDir},
	}, script)
}

// buffer is a client's output; the end of what is too much is lost.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

const bufferBytes = 4 << 20

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() < bufferBytes {
		b.buf.Write(p)
	}
	return len(p), nil
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Has implements Place: what the compositor itself offers.
func (d *Direct) Has(n Need) (bool, string) {
	switch {
	case n&NeedKeyboard != 0 && !d.Compositor.Keyboard():
		return false, d.Compositor.Name + " has no keyboard"
	}
	return true, ""
}

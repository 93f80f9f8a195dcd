package waylandtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Compositor serves any number of clients on one goroutine.
type Compositor struct {
	cfg  Config
	path string
	wake *dmabuf.FD // eventfd
	done chan struct{}

	// Owned by the goroutine.
	listener   *dmabuf.FD
	clients    []*client
	secure     []*secure
	selections map[bool]*source // by whether it is the primary one
	frozen     bool

	mu         sync.Mutex
	calls      []func()  // guarded by mu: to run on the goroutine
	commits    []Commit  // guarded by mu
	violations []string  // guarded by mu
	cursors    []Pointer // guarded by mu
	accepted   int       // guarded by mu
	times      []int64   // guarded by mu
	profiles   []string  // guarded by mu
	closing    bool      // guarded by mu
}

// Pointer is one wl_pointer.set_cursor.
type Pointer struct {
	Serial  uint32
	Surface uint32 // 0 hides
}

// New starts a compositor in a folder of the test and closes it at its end. It
// fails the test if a client broke the protocol.
func New(t testing.TB, cfg Config) *Compositor {
	t.Helper()
	// t.TempDir has the test's name in it; a socket's path must be short.
	dir, err := os.MkdirTemp("", "wl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c, err := Listen(filepath.Join(dir, "wayland"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		for _, v := range c.Violations() {
			t.Errorf("the client broke the protocol: %s", v)
		}
	})
	return c
}

// Listen starts a compositor on a socket at path, which must not exist.
func Listen(path string, cfg Config) (*Compositor, error) {
	raw, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("waylandtest: socket: %w", err)
	}
	listener := dmabuf.NewFD(raw, "compositor "+path)
	if err := unix.Bind(raw, &unix.SockaddrUnix{Name: path}); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("waylandtest: bind %s: %w", path, err)
	}
	if err := unix.Listen(raw, 8); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("waylandtest: listen on %s: %w", path, err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("waylandtest: eventfd: %w", err)
	}
	c := &Compositor{cfg: cfg, path: path, listener: listener, wake: dmabuf.NewFD(wake, "compositor wake"), done: make(chan struct{})}
	go c.run()
	return c, nil
}

// Socket returns the path that clients connect to.
func (c *Compositor) Socket() string { return c.path }

func (c *Compositor) run() {
	defer close(c.done)
	for {
		polls := []unix.PollFd{
			{Fd: int32(c.wake.Int()), Events: unix.POLLIN},
			{Fd: int32(c.listener.Int()), Events: unix.POLLIN},
		}
		if c.frozen {
			polls = polls[:1]
		} else {
			for _, cl := range c.clients {
				events := int16(unix.POLLIN)
				if cl.conn.Out.Pending() > 0 {
					events |= unix.POLLOUT
				}
				polls = append(polls, unix.PollFd{Fd: int32(cl.conn.FD()), Events: events})
			}
			for _, s := range c.secure {
				polls = s.polls(polls)
			}
		}
		if _, err := unix.Poll(polls, -1); err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("waylandtest: poll: %v", err))
		}
		if polls[0].Revents != 0 && c.runCalls() {
			break
		}
		if c.frozen {
			continue
		}
		if len(polls) > 1 && polls[1].Revents != 0 {
			c.accept(c.listener, nil)
		}
		c.serveSecure()
		c.serve()
	}
	for _, s := range c.secure {
		s.close()
	}
	for _, cl := range c.clients {
		cl.close()
	}
	_ = c.listener.Close()
}

// runCalls runs what tests posted and reports whether the compositor closes.
func (c *Compositor) runCalls() bool {
	var buf [8]byte
	_, _ = unix.Read(c.wake.Int(), buf[:])
	c.mu.Lock()
	calls := c.calls
	c.calls = nil
	closing := c.closing
	c.mu.Unlock()
	for _, f := range calls {
		f()
	}
	return closing
}

func (c *Compositor) accept(listener *dmabuf.FD, sandbox *Sandbox) {
	raw, _, err := unix.Accept4(listener.Int(), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return
	}
	conn, err := wire.NewConn(dmabuf.NewFD(raw, "compositor's client"), 0)
	if err != nil {
		return
	}
	cl := newClient(c, conn)
	cl.sandbox = sandbox
	c.clients = append(c.clients, cl)
	c.mu.Lock()
	c.accepted++
	c.mu.Unlock()
}

// serve reads from and writes to every client, and forgets those that are gone.
func (c *Compositor) serve() {
	var alive []*client
	for _, cl := range c.clients {
		err := cl.receive()
		if ferr := cl.conn.Flush(); err == nil {
			err = ferr
		}
		if err == nil && !cl.dead {
			alive = append(alive, cl)
			continue
		}
		if err != nil && !errors.Is(err, wire.ErrClosed) {
			c.violation("%v", err)
		}
		cl.close()
	}
	c.clients = alive
}

func (c *Compositor) violation(format string, args ...any) {
	c.mu.Lock()
	c.violations = append(c.violations, fmt.Sprintf(format, args...))
	c.mu.Unlock()
}

// call runs f on the goroutine and waits for it.
func (c *Compositor) call(f func()) {
	ran := make(chan struct{})
	c.post(func() { f(); close(ran) })
	select {
	case <-ran:
	case <-c.done:
	}
}

func (c *Compositor) post(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wake.Valid() {
		c.calls = append(c.calls, f)
		_, _ = unix.Write(c.wake.Int(), binary.LittleEndian.AppendUint64(nil, 1))
	}
}

// Close disconnects every client and frees everything. A second Close does nothing.
func (c *Compositor) Close() {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.post(func() {})
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.wake.Close()
	_ = os.Remove(c.path)
}

// waitTime bounds every wait of a test.
const waitTime = 10 * time.Second

// Eventually polls f until it is true and fails the test after ten seconds.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(waitTime); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%v have passed and still not: %s", waitTime, what)
		}
	}
}

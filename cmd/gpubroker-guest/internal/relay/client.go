package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/shm"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Config is what a client is served with.
type Config struct {
	Name  string // for logs
	Store *shm.Store
	// GPU returns the open render node whose context the host lets this client name
	// resources of; nil if there is none. It stays the caller's.
	GPU func() (*drm.Device, error)
	// SyncNode is a render node that makes timeline syncobjs, "" to offer none.
	SyncNode string
	Log      *slog.Logger
}

// Stats counts what one client did. Safe for concurrent use.
type Stats struct {
	Frames [3]atomic.Uint64 // commits with a new wl_shm buffer, by shm.Tier
	DMABuf atomic.Uint64    // commits with a new buffer of another kind
	Bytes  [3]atomic.Uint64 // copied, by shm.Tier
	Sent   atomic.Uint64    // bytes of requests
	Why    atomic.Pointer[string]

	mu      sync.Mutex
	windows map[wire.ID]*window // guarded by mu
}

// window is what a client says of an xdg_toplevel.
type window struct{ app, title string }

// Windows returns app id and title of each window.
func (s *Stats) Windows() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := []string{}
	for _, w := range s.windows {
		names = append(names, fmt.Sprintf("%s: %q", w.app, w.title))
	}
	sort.Strings(names)
	return names
}

// name notes what a window is called; nil for set means that it is gone.
func (s *Stats) name(id wire.ID, set func(*window)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if set == nil {
		delete(s.windows, id)
		return
	}
	if s.windows == nil {
		s.windows = map[wire.ID]*window{}
	}
	if s.windows[id] == nil {
		s.windows[id] = &window{}
	}
	set(s.windows[id])
}

// Client relays one client.
type Client struct {
	cfg   Config
	host  *link.Conn
	stats *Stats
	stop  chan struct{} // closed when the client is to end
	once  sync.Once

	in   *wire.Conn
	file *os.File // the client's socket, for the runtime's poller
	raw  syscall.RawConn
	out  *writer
	told atomic.Bool // the client was told of an error

	leaving atomic.Bool // the client is gone, and pipes are emptied

	objects *objects
	sync    *syncDevice // nil: no timelines

	// Of the goroutine that reads from the client.
	batch  batch
	newIDs []newID
	pools  int
	shm    wire.ID // the wl_shm bound last, for errors

	eventIDs []newID // of the goroutine that reads from the host

	bufMu   sync.Mutex
	buffers map[*buffer]struct{}
}

// NewClient takes ownership of a client's connected socket and of the connection to
// the host. Run must be called once.
func NewClient(cfg Config, socket *dmabuf.FD, host *link.Conn, stats *Stats) (*Client, error) {
	c := &Client{cfg: cfg, host: host, stats: stats, stop: make(chan struct{}),
		objects: newObjects(), buffers: map[*buffer]struct{}{}}
	if err := c.open(socket); err != nil {
		_ = host.Close()
		return nil, &OpError{Op: "set up a client", Err: err}
	}
	if cfg.SyncNode != "" {
		dev, err := dmabuf.OpenSyncDevice(cfg.SyncNode)
		if err == nil {
			c.sync = &syncDevice{dev: dev, timelines: map[*timeline]struct{}{}}
		} else {
			cfg.Log.Debug("no explicit synchronisation", "why", err)
		}
	}
	return c, nil
}

// open makes two connections of the socket, because one belongs to one goroutine, and
// a file for the runtime's poller.
func (c *Client) open(socket *dmabuf.FD) error {
	writeEnd, err := socket.Dup()
	if err != nil {
		_ = socket.Close()
		return err
	}
	pollEnd, err := socket.Dup()
	if err != nil {
		_, _ = socket.Close(), writeEnd.Close()
		return err
	}
	if c.in, err = wire.NewConn(socket, 0); err != nil {
		_, _ = writeEnd.Close(), pollEnd.Close()
		return err
	}
	out, err := wire.NewConn(writeEnd, 0)
	if err != nil {
		_, _ = c.in.Close(), pollEnd.Close()
		return err
	}
	// The socket is non-blocking now, which the poller wants.
	c.file = os.NewFile(uintptr(pollEnd.Disown()), "wayland client")
	if c.raw, err = c.file.SyscallConn(); err != nil {
		_, _, _ = c.in.Close(), out.Close(), c.file.Close()
		return err
	}
	c.out = newWriter(out, c.raw)
	return nil
}

// LeaveTime is how long a client may take to read the error that ends it.
const LeaveTime = time.Second

// drainTime is how long data of pipes is still passed on when the client has left: who
// copies something may end at once.
const drainTime = 10 * time.Second

// Run relays until one side ends or ctx does, and closes everything. The result is nil
// if the client left by itself.
func (c *Client) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	end := func(err error) {
		errs <- err
		c.end()
	}
	stop := context.AfterFunc(ctx, func() { end(errStopped) })
	wg.Go(func() {
		// That the client is gone is for clientLoop to see, which has still to read what it sent.
		if err := c.writeLoop(); !errors.Is(err, wire.ErrClosed) {
			end(err)
		}
	})
	wg.Go(func() { end(c.hostLoop()) })
	err := c.clientLoop()
	if errors.Is(err, wire.ErrClosed) {
		c.leaving.Store(true)
		drain, cancel := context.WithTimeout(ctx, drainTime)
		_ = c.host.DrainPipes(drain)
		cancel()
	}
	end(err)
	wg.Wait()
	if !stop() {
		err = errStopped
	} else {
		err = <-errs // the first is the reason
	}
	c.close()
	if errors.Is(err, wire.ErrClosed) || errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// end makes the loops return.
func (c *Client) end() {
	c.once.Do(func() {
		close(c.stop)
		c.out.fail(errStopped)
		_ = c.host.Close()
		_ = c.file.Close()
	})
}

func (c *Client) writeLoop() error { return c.out.flush(c.stop) }

// clientLoop reads from the client.
func (c *Client) clientLoop() error {
	err := c.readClient()
	var perr *ProtocolError
	switch {
	case errors.As(err, &perr):
		c.host.Fail(err)
		c.tell(perr)
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrDescriptors):
		c.host.Fail(err)
		c.tell(displayError(codeInvalidMethod, "%v", err).(*ProtocolError))
	case err != nil && !errors.Is(err, wire.ErrClosed) && !errors.Is(err, errStopped):
		// Where the host does not take more it may have said why.
		select {
		case <-c.stop:
		case <-time.After(time.Second):
		}
		c.tell(displayError(codeImplementation, "gpubroker: %v", err).(*ProtocolError))
	}
	return err
}

func (c *Client) readClient() error {
	for {
		var failed error
		// What has arrived is handled before more is read, and sent in one piece.
		if err := c.raw.Read(func(uintptr) bool {
			n, err := c.in.Receive()
			failed = err
			return n > 0 || err != nil
		}); err != nil {
			return errStopped
		}
		if failed != nil {
			return failed
		}
		for {
			m, ok, err := c.in.Next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if err := c.request(m); err != nil {
				// What came before is the client's good right.
				if ferr := c.flush(); ferr != nil {
					c.cfg.Log.Debug("the last messages are lost", "client", c.cfg.Name, "why", ferr)
				}
				return err
			}
			if c.batch.full() {
				if err := c.flush(); err != nil {
					return err
				}
			}
		}
		if err := c.flush(); err != nil {
			return err
		}
	}
}

// hostLoop reads from the host.
func (c *Client) hostLoop() error {
	err := c.readHost()
	if errors.Is(err, io.EOF) {
		err = &OpError{Op: "read from the host", Err: errors.New("the host ended the connection")}
	}
	select {
	case <-c.stop:
	default:
		c.tell(displayError(codeImplementation, "gpubroker: %v", err).(*ProtocolError))
	}
	return err
}

func (c *Client) readHost() error {
	var items []link.Item
	for {
		f, err := c.host.Recv()
		if err != nil {
			return err
		}
		if c.leaving.Load() {
			continue
		}
		var data []byte
		if items, data, err = link.DecodeWayland(f.Payload, link.Host, items[:0]); err != nil {
			return err
		}
		if err := c.dispatch(data, items); errors.Is(err, wire.ErrClosed) {
			c.leaving.Store(true)
		} else if err != nil {
			return err
		}
	}
}

// dispatch passes whole messages on, in one piece. Those before a bad one are the
// client's, too.
func (c *Client) dispatch(data []byte, items []link.Item) error {
	err := c.messages(data, items)
	if sent := c.out.send(); err == nil {
		err = sent
	}
	return err
}

func (c *Client) messages(data []byte, items []link.Item) error {
	for len(data) > 0 {
		m, n, err := wire.Frame(data, 1<<16-4)
		if err != nil || n == 0 {
			return fmt.Errorf("%w: half a message: %w", errHost, errors.Join(err, io.ErrUnexpectedEOF))
		}
		if err := c.event(m, &items); err != nil {
			return err
		}
		data = data[n:]
		if err := c.out.wait(); err != nil {
			return err
		}
	}
	if len(items) > 0 {
		return fmt.Errorf("%w: %d items that no message has", errHost, len(items))
	}
	return nil
}

// tell sends wl_display.error, once, as far as the client reads.
func (c *Client) tell(e *ProtocolError) {
	if c.told.Swap(true) {
		return
	}
	text := e.Text
	if len(text) > 1024 {
		text = text[:1024]
	}
	_ = c.out.write(func(w *wire.Writer) {
		proto.WlDisplay(wire.DisplayID).SendError(w, e.Object, e.Code, text)
	})
}

// Refuse ends a client's connection, whose socket it takes, with an error. It waits for the
// client to have read it, no longer than wait; the reason may be lost otherwise.
func Refuse(socket *dmabuf.FD, text string, wait time.Duration) {
	conn, err := wire.NewConn(socket, 0)
	if err != nil {
		return
	}
	if len(text) > 1024 {
		text = text[:1024]
	}
	proto.WlDisplay(wire.DisplayID).SendError(&conn.Out, wire.DisplayID, codeImplementation, text)
	_ = conn.Leave(wait)
}

// addBuffer keeps a buffer until it is free.
func (c *Client) addBuffer(b *buffer) error {
	c.bufMu.Lock()
	defer c.bufMu.Unlock()
	if len(c.buffers) >= maxBuffers {
		return displayError(codeNoMemory, "%d buffers, the limit", maxBuffers)
	}
	c.buffers[b] = struct{}{}
	b.gone = func(b *buffer) {
		c.bufMu.Lock()
		defer c.bufMu.Unlock()
		delete(c.buffers, b)
	}
	return nil
}

// close frees everything that is left.
func (c *Client) close() {
	for _, o := range c.objects.take() {
		switch data := o.data.(type) {
		case *shm.Pool:
			data.Release()
		case *params:
			closePlanes(data.take())
		}
	}
	c.bufMu.Lock()
	left := make([]*buffer, 0, len(c.buffers))
	for b := range c.buffers {
		left = append(left, b)
	}
	c.bufMu.Unlock()
	for _, b := range left {
		b.free()
	}
	c.sync.close()
	_ = c.in.Close()
	if c.told.Load() {
		c.out.close(LeaveTime)
	} else {
		c.out.close(0)
	}
}

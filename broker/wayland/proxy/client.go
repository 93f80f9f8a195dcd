package proxy

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// client is one client of the guest with its connection to the compositor.
//
// Two goroutines run it: one takes chunks from the guest and may wait, for the GPU,
// for a resource, for the compositor's answer; the other reads the compositor and is
// the only one that sends to the guest. Whoever cannot pass on what it has stops
// reading, so that nothing grows.
type client struct {
	p       *Proxy
	guest   Guest
	owner   Owner
	dialect Dialect
	limits  *Limits
	log     *zap.Logger
	ctx     context.Context
	stop    context.CancelFunc
	late    context.Context // ends farewell after ctx: for what is sent to the guest

	wakeFD  *dmabuf.FD    // eventfd: the guest's side has something for the host's
	stopFD  *dmabuf.FD    // eventfd: readable once ctx has ended
	stopped chan struct{} // closed when stopFD was written
	detach  func() bool   // ends the watch on the proxy's context

	// mu guards everything below. The guest's goroutine lets go of it while it waits.
	mu      sync.Mutex
	changed *sync.Cond // an answer came, or a buffer was released, or ctx ended
	objs    objects
	conn    *wire.Conn
	out     wire.Writer // for the guest
	items   []Item      // that go with out
	spare   wire.Writer // the other half of a double buffer
	awake   bool        // wakeFD was written and not read yet
	err     error       // the compositor's last word
	told    bool        // the compositor's wl_display.error is on its way to the guest

	req     message // the request being handled, by the guest's goroutine
	evt     message // the event being handled
	inbox   []Item  // the guest's items that no message claimed yet
	partial []byte  // the beginning of a message

	host       hostState
	globals    []global
	registries []*object // the guest's
	feedbacks  []*object // the guest's zwp_linux_dmabuf_feedback_v1
	surfaces   []*surface
	windows    []*window
	nBuffers   int
	nPools     int
	hostBytes  int64
}

func newClient(ctx context.Context, p *Proxy, guest Guest, owner Owner) *client {
	c := &client{p: p, guest: guest, owner: owner, dialect: guest.Dialect(), limits: &p.limits, objs: newObjects(), stopped: make(chan struct{})}
	c.log = p.log.With(zap.String("client", c.dialect.Name), zap.String("transport", c.dialect.Transport))
	c.changed = sync.NewCond(&c.mu)
	c.out.MaxPending, c.spare.MaxPending = 1<<26, 1<<26 // Backlog stops earlier
	c.ctx, c.stop = context.WithCancel(ctx)
	c.late = lingering(c.ctx)
	c.detach = context.AfterFunc(p.ctx, c.stop)
	return c
}

// lingering makes a context that ends farewell after ctx does. What is on its way to
// the guest is not cut off when its client ends, or the last words would come after
// half a message, or never.
func lingering(ctx context.Context) context.Context {
	late, end := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(farewell, end) })
	return late
}

// farewell is how long the guest may take to accept the last words.
const farewell = time.Second

// serve runs the client until its end. The result is io.EOF if the guest left.
func (c *client) serve() error {
	err := c.connect()
	if err == nil {
		err = c.run()
	}
	c.stop()
	c.detach()
	c.sayGoodbye(err)
	c.release()
	return err
}

// connect makes the host connection and learns what the compositor has.
func (c *client) connect() error {
	var err error
	if c.wakeFD, err = eventfd("proxy wake"); err != nil {
		return err
	}
	fd, err := eventfd("proxy stop")
	if err != nil {
		return err
	}
	c.stopFD = fd
	context.AfterFunc(c.ctx, func() {
		ring(c.stopFD)
		c.mu.Lock()
		c.changed.Broadcast()
		c.mu.Unlock()
		close(c.stopped)
	})
	conn, err := c.p.dial(c.ctx)
	if err != nil {
		return err
	}
	conn.Out.MaxPending = 1 << 24 // Backlog stops earlier
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
	return c.learn()
}

func eventfd(name string) (*dmabuf.FD, error) {
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, &OpError{Op: "make an eventfd", Err: err}
	}
	return dmabuf.NewFD(raw, name), nil
}

var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

func ring(fd *dmabuf.FD) { _, _ = unix.Write(fd.Int(), one) }

// run starts both directions and waits for their ends.
func (c *client) run() error {
	hostDone := make(chan error, 1)
	go func() {
		err := c.serveHost()
		c.mu.Lock()
		if c.err == nil {
			c.err = err
		}
		c.mu.Unlock()
		c.stop()
		hostDone <- err
	}()
	guestErr := c.serveGuest()
	c.stop()
	hostErr := <-hostDone
	// The one that ended first has the reason; the other was told to stop.
	switch {
	case !errors.Is(guestErr, context.Canceled):
		if errors.Is(guestErr, io.EOF) && c.conn != nil {
			c.mu.Lock()
			_ = c.conn.Flush()
			c.mu.Unlock()
		}
		return guestErr
	case hostErr != nil && !errors.Is(hostErr, context.Canceled):
		return hostErr
	case c.p.ctx.Err() != nil:
		return ErrClosed
	}
	return context.Cause(c.ctx) // whoever ended it may have said why
}

// sayGoodbye sends what is left, and why the connection ends, as far as the guest
// takes it.
func (c *client) sayGoodbye(err error) {
	if err == nil || errors.Is(err, io.EOF) {
		return
	}
	c.mu.Lock()
	var bad *clientError
	switch {
	case errors.As(err, &bad):
		proto.WlDisplay(wire.DisplayID).SendError(&c.out, bad.object, bad.code, short(err.Error()))
	case !c.told && !errors.Is(err, context.Canceled):
		proto.WlDisplay(wire.DisplayID).SendError(&c.out, wire.DisplayID, codeBroken, short("gpubroker: "+err.Error()))
	}
	chunk, ok := c.takeOutput()
	c.mu.Unlock()
	if ok {
		_ = c.guest.Send(c.late, chunk)
	}
	c.guest.Fail(err)
}

// short cuts a text so that it fits a message.
func short(s string) string { return s[:min(len(s), 1024)] }

// release frees everything. Both goroutines have ended.
func (c *client) release() {
	if c.stopFD != nil {
		<-c.stopped
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.inbox {
		c.inbox[i].Close()
	}
	for i := range c.items {
		c.items[i].Close()
	}
	c.inbox, c.items = nil, nil
	c.req.item.Close()
	for _, o := range c.objs.host {
		freeData(c, o)
	}
	for _, o := range c.objs.guest {
		freeData(c, o)
	}
	for _, o := range c.objs.server {
		freeData(c, o)
	}
	if c.conn != nil {
		_ = c.conn.Close()
	}
	_ = c.guest.Close()
	_ = c.stopFD.Close()
	_ = c.wakeFD.Close()
}

// owner of memory: what an object's data frees when the client ends.
type closer interface{ free(c *client) }

func freeData(c *client, o *object) {
	if o == nil {
		return
	}
	if d, ok := o.data.(closer); ok {
		o.data = nil
		d.free(c)
	}
}

// serveGuest takes what the guest sends until its end.
func (c *client) serveGuest() error {
	for {
		chunk, err := c.guest.Recv(c.ctx)
		if err != nil {
			return err
		}
		if err := c.take(chunk); err != nil {
			return err
		}
	}
}

// take handles one chunk from the guest.
func (c *client) take(chunk Chunk) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inbox = append(c.inbox, chunk.Items...)
	if len(c.inbox) > c.limits.Items+maxArgs {
		return over(wire.DisplayID, "items in flight", int64(len(c.inbox)), int64(c.limits.Items))
	}
	data := chunk.Data
	if len(c.partial) > 0 {
		c.partial = append(c.partial, data...)
		data = c.partial
	}
	for len(data) > 0 {
		raw, n, err := wire.Frame(data, wire.MaxMessage)
		if err != nil {
			return fault(wire.DisplayID, codeMethod, "%w", err)
		}
		if n == 0 {
			break
		}
		if err := c.request(raw); err != nil {
			return err
		}
		data = data[n:]
		if err := c.pace(); err != nil {
			return err
		}
	}
	c.partial = append(c.partial[:0], data...)
	if len(c.inbox) > c.limits.Items {
		return over(wire.DisplayID, "items in flight", int64(len(c.inbox)), int64(c.limits.Items))
	}
	if chunk.Update != nil {
		if err := c.update(chunk.Update); err != nil {
			return err
		}
	}
	return c.flush()
}

// pace waits while too much is on its way, in either direction.
func (c *client) pace() error {
	if c.conn.Out.Pending() > c.limits.Backlog || c.conn.Out.PendingFDs() > c.limits.Items {
		for {
			if err := c.conn.Flush(); err != nil {
				return c.hostGone(err)
			}
			if c.conn.Out.Pending() <= c.limits.Backlog/2 && c.conn.Out.PendingFDs() <= c.limits.Items/2 {
				break
			}
			c.mu.Unlock()
			polls := []unix.PollFd{{Fd: int32(c.conn.FD()), Events: unix.POLLOUT}, {Fd: int32(c.stopFD.Int()), Events: unix.POLLIN}}
			_, _ = unix.Poll(polls, -1)
			c.mu.Lock()
			if c.ctx.Err() != nil {
				return context.Canceled
			}
		}
	}
	if c.out.Pending() > c.limits.Backlog {
		c.wake()
		return c.waitFor(func() bool { return c.out.Pending() <= c.limits.Backlog/2 })
	}
	return nil
}

// waitFor lets go of mu until f is true or the client ends.
func (c *client) waitFor(f func() bool) error {
	for !f() {
		if c.ctx.Err() != nil {
			return context.Canceled
		}
		c.changed.Wait()
	}
	return nil
}

// unlocked runs f, which may wait until ctx ends, without mu.
func (c *client) unlocked(f func() error) error {
	c.mu.Unlock()
	defer c.mu.Lock()
	return f()
}

// flush sends what the compositor's socket takes and makes the host's goroutine see
// to the rest.
func (c *client) flush() error {
	if err := c.conn.Flush(); err != nil {
		return c.hostGone(err)
	}
	if c.conn.Out.Pending() > 0 || c.out.Pending() > 0 {
		c.wake()
	}
	return nil
}

// hostGone waits for the compositor's last words, which say more than the broken pipe.
func (c *client) hostGone(err error) error {
	if errors.Is(err, wire.ErrClosed) {
		_ = c.unlocked(func() error { <-c.ctx.Done(); return nil })
		return context.Canceled
	}
	return err
}

func (c *client) wake() {
	if !c.awake {
		c.awake = true
		ring(c.wakeFD)
	}
}

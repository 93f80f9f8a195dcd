package linkbench

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// frame is a commit as the compositor got it.
type frame struct {
	at    int64  // CLOCK_MONOTONIC, nanoseconds
	first uint32 // pixel at the start of the damage
	last  uint32 // at its end
}

// compositor is one that only takes the time, and releases buffers at once, as those
// do that copy shared memory.
type compositor struct {
	path   string
	frames chan frame // of all clients
	ln     *net.UnixListener
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[*net.UnixConn]struct{} // guarded by mu
	errs  []error                    // guarded by mu
}

func newCompositor(path string) (*compositor, error) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	c := &compositor{path: path, frames: make(chan frame, 64), ln: ln, conns: map[*net.UnixConn]struct{}{}}
	c.wg.Go(func() {
		for {
			u, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.conns[u] = struct{}{}
			c.mu.Unlock()
			c.wg.Go(func() { c.serve(u) })
		}
	})
	return c, nil
}

// close ends all clients. The result is what they did wrong.
func (c *compositor) close() error {
	_ = c.ln.Close()
	c.mu.Lock()
	for u := range c.conns {
		_ = u.CloseRead()
	}
	c.mu.Unlock()
	c.wg.Wait()
	return errors.Join(c.errs...)
}

func (c *compositor) serve(u *net.UnixConn) {
	err := func() error {
		conn, err := dupConn(u)
		if err != nil {
			return err
		}
		p := &peer{c: c, conn: conn, objects: map[wire.ID]any{wire.DisplayID: display{}}}
		defer p.close()
		return p.run()
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, u)
	_ = u.Close()
	if err != nil && !errors.Is(err, wire.ErrClosed) {
		c.errs = append(c.errs, fmt.Errorf("compositor: %w", err))
	}
}

// dupConn makes a Wayland connection of a socket, which stays the caller's.
func dupConn(u *net.UnixConn) (*wire.Conn, error) {
	f, err := u.File()
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	raw, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return wire.NewConn(dmabuf.NewFD(raw, "bench"), 1<<16)
}

// peer is one client of the compositor.
type peer struct {
	c       *compositor
	conn    *wire.Conn
	objects map[wire.ID]any
	maps    [][]byte // of pools
}

// Kinds of objects.
type (
	display  struct{}
	registry struct{}
	factory  struct{} // wl_compositor
	shm      struct{}
	region   struct{}
	pool     struct{ mem []byte }
	buffer   struct {
		mem    []byte // from the buffer's start on
		stride int
	}
	surface struct {
		next   wire.ID // attached, 0 for nothing
		damage [4]int32
	}
)

func (p *peer) close() {
	_ = p.conn.Close()
	for _, m := range p.maps {
		_ = dmabuf.Unmap(m)
	}
}

func (p *peer) run() error {
	for {
		if err := wait(p.conn); err != nil {
			return err
		}
		for {
			m, ok, err := p.conn.Next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if err := p.request(m); err != nil {
				return err
			}
		}
	}
}

// wait sends what is pending and waits until something has come.
func wait(conn *wire.Conn) error {
	for {
		if err := conn.Flush(); err != nil {
			return err
		}
		if n, err := conn.Receive(); n > 0 || err != nil {
			return err
		}
		events := int16(unix.POLLIN)
		if conn.Out.Pending() > 0 {
			events |= unix.POLLOUT
		}
		polls := []unix.PollFd{{Fd: int32(conn.FD()), Events: events}}
		if _, err := unix.Poll(polls, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (p *peer) request(m wire.Message) error {
	o, ok := p.objects[m.Object]
	if !ok {
		return fmt.Errorf("request %d for object %d, which does not exist", m.Opcode, m.Object)
	}
	out := &p.conn.Out
	d := m.Decoder()
	switch o := o.(type) {
	case display:
		id := d.Object()
		if m.Opcode == proto.OpWlDisplaySync {
			proto.WlCallback(id).SendDone(out, 0)
			proto.WlDisplay(wire.DisplayID).SendDeleteId(out, uint32(id))
			return d.Err()
		}
		p.objects[id] = registry{}
		proto.WlRegistry(id).SendGlobal(out, 1, "wl_compositor", 4)
		proto.WlRegistry(id).SendGlobal(out, 2, "wl_shm", 1)
	case registry:
		name, _, _, id := d.Uint(), d.String(), d.Uint(), d.Object()
		p.objects[id] = factory{}
		if name == 2 {
			p.objects[id] = shm{}
			proto.WlShm(id).SendFormat(out, proto.WlShmFormatArgb8888)
			proto.WlShm(id).SendFormat(out, proto.WlShmFormatXrgb8888)
		}
	case factory:
		id := d.Object()
		p.objects[id] = region{}
		if m.Opcode == proto.OpWlCompositorCreateSurface {
			p.objects[id] = &surface{}
		}
	case shm:
		return p.createPool(m)
	case *pool:
		return p.poolRequest(o, m)
	case *buffer, region:
		if m.Opcode == 0 { // destroy
			p.destroy(m.Object)
		}
		return nil
	case *surface:
		return p.surfaceRequest(o, m)
	}
	return d.Err()
}

// destroy forgets an object and frees its id.
func (p *peer) destroy(id wire.ID) {
	delete(p.objects, id)
	proto.WlDisplay(wire.DisplayID).SendDeleteId(&p.conn.Out, uint32(id))
}

func (p *peer) createPool(m wire.Message) error {
	var req proto.WlShmCreatePoolRequest
	if err := req.Decode(m); err != nil {
		return err
	}
	defer func() { _ = req.Fd.Close() }()
	mem, err := dmabuf.Map(req.Fd, int64(req.Size), false)
	if err != nil {
		return err
	}
	p.maps = append(p.maps, mem)
	p.objects[wire.ID(req.Id)] = &pool{mem}
	return nil
}

func (p *peer) poolRequest(o *pool, m wire.Message) error {
	switch m.Opcode {
	case proto.OpWlShmPoolCreateBuffer:
		var req proto.WlShmPoolCreateBufferRequest
		if err := req.Decode(m); err != nil {
			return err
		}
		if req.Offset < 0 || int64(req.Offset)+int64(req.Stride)*int64(req.Height) > int64(len(o.mem)) {
			return fmt.Errorf("buffer of %d rows of %d bytes at %d in a pool of %d", req.Height, req.Stride, req.Offset, len(o.mem))
		}
		p.objects[wire.ID(req.Id)] = &buffer{o.mem[req.Offset:], int(req.Stride)}
	case proto.OpWlShmPoolDestroy:
		p.destroy(m.Object)
	default:
		return fmt.Errorf("wl_shm_pool request %d is not served", m.Opcode)
	}
	return nil
}

func (p *peer) surfaceRequest(s *surface, m wire.Message) error {
	d := m.Decoder()
	switch m.Opcode {
	case proto.OpWlSurfaceAttach:
		s.next = d.OptObject()
	case proto.OpWlSurfaceDamage, proto.OpWlSurfaceDamageBuffer:
		s.damage = [4]int32{d.Int(), d.Int(), d.Int(), d.Int()}
	case proto.OpWlSurfaceDestroy:
		p.destroy(m.Object)
	case proto.OpWlSurfaceCommit:
		at := now()
		b, ok := p.objects[s.next].(*buffer)
		if !ok {
			return nil
		}
		x, y, w, h := int(s.damage[0]), int(s.damage[1]), int(s.damage[2]), int(s.damage[3])
		first, last := y*b.stride+x*4, (y+h-1)*b.stride+(x+w-1)*4
		if first < 0 || last < first || last+4 > len(b.mem) {
			return fmt.Errorf("damage %v is not in the buffer", s.damage)
		}
		f := frame{at: at, first: pixel(b.mem[first:]), last: pixel(b.mem[last:])}
		proto.WlBuffer(s.next).SendRelease(&p.conn.Out)
		s.next = 0
		if err := p.conn.Flush(); err != nil {
			return err
		}
		p.c.frames <- f
	}
	return d.Err()
}

package westoncap

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

var (
	// ErrRefused says that weston gives no picture; it must run with --debug.
	ErrRefused = errors.New("the compositor gives no picture")
	// ErrTimeout says that weston did not answer in time.
	ErrTimeout = errors.New("no answer from the compositor")
)

// Opcodes and values of weston_output_capture.xml, version 1.
const (
	captureCreate     = 1 // weston_capture_v1.create(output, source, id)
	sourceFramebuffer = 1 // the picture after composition, without borders
	sourceCapture     = 1 // weston_capture_source_v1.capture(buffer)
	evFormat          = 0
	evSize            = 1
	evComplete        = 2
	evRetry           = 3
	evFailed          = 4
)

// Camera is a connection to a weston. It belongs to one goroutine.
type Camera struct {
	conn    *wire.Conn
	next    wire.ID
	globals map[string]uint32 // by interface: the first global's name

	shm    proto.WlShm
	source wire.ID

	fourcc dmabuf.Fourcc // what a buffer must look like
	w, h   int32
	buf    *dmabuf.Buffer // nil until the first picture, and after a change of size
	wl     proto.WlBuffer

	sync   wire.ID
	synced bool
	result uint16 // evComplete, evRetry or evFailed once known
	done   bool
	why    string
}

// Timeout bounds one answer of the compositor, inside an emulated machine too.
const Timeout = 60 * time.Second

// Open connects to the weston that listens at path. The caller closes the camera.
func Open(path string) (*Camera, error) {
	conn, err := wire.Dial(path)
	if err != nil {
		return nil, fmt.Errorf("westoncap: %w", err)
	}
	c := &Camera{conn: conn, next: wire.DisplayID, globals: map[string]uint32{}}
	if err := c.bind(); err != nil {
		c.Close()
		return nil, fmt.Errorf("westoncap: %w", err)
	}
	return c, nil
}

// Close disconnects.
func (c *Camera) Close() {
	c.buf.Release()
	c.buf = nil
	_ = c.conn.Close()
}

func (c *Camera) newID() wire.ID {
	c.next++
	return c.next
}

const registryID = wire.DisplayID + 1

func (c *Camera) bind() error {
	registry := proto.WlRegistry(c.newID())
	proto.WlDisplay(wire.DisplayID).GetRegistry(&c.conn.Out, registry)
	if err := c.roundtrip(); err != nil {
		return err
	}
	ids := map[string]wire.ID{}
	for _, iface := range []string{"wl_shm", "wl_output", "weston_capture_v1"} {
		name, ok := c.globals[iface]
		if !ok {
			return fmt.Errorf("%w: it has no %s", ErrRefused, iface)
		}
		ids[iface] = c.newID()
		registry.Bind(&c.conn.Out, name, iface, 1, ids[iface])
	}
	c.shm = proto.WlShm(ids["wl_shm"])
	c.source = c.newID()
	out := &c.conn.Out
	out.Begin(ids["weston_capture_v1"], captureCreate)
	out.Object(ids["wl_output"])
	out.Uint(sourceFramebuffer)
	out.Object(c.source)
	out.End()
	return c.roundtrip()
}

// Shoot takes a picture of what is on the output now.
func (c *Camera) Shoot() (*Picture, error) {
	p := &Picture{}
	return p, c.ShootInto(p)
}

// ShootInto is Shoot into p, whose memory is used again if it is large enough.
func (c *Camera) ShootInto(p *Picture) error {
	const attempts = 4 // each retry says that size or format has just changed
	for range attempts {
		if err := c.prepare(); err != nil {
			return fmt.Errorf("westoncap: %w", err)
		}
		c.done = false
		out := &c.conn.Out
		out.Begin(c.source, sourceCapture)
		out.Object(wire.ID(c.wl))
		out.End()
		if err := c.wait(&c.done); err != nil {
			return fmt.Errorf("westoncap: %w", err)
		}
		switch c.result {
		case evComplete:
			p.W, p.H = int(c.w), int(c.h)
			if cap(p.Pix) < p.W*p.H {
				p.Pix = make([]uint32, p.W*p.H)
			}
			p.Pix = p.Pix[:p.W*p.H]
			p.read(c.buf.Mem, c.fourcc)
			return nil
		case evFailed:
			return fmt.Errorf("westoncap: %w: %s", ErrRefused, c.why)
		}
	}
	return fmt.Errorf("westoncap: %w: its output changed %d times", ErrRefused, attempts)
}

// prepare makes a buffer of the size and format that weston asks for.
func (c *Camera) prepare() error {
	if c.buf != nil && c.buf.Width == uint32(c.w) && c.buf.Height == uint32(c.h) && c.buf.Fourcc == c.fourcc {
		return nil
	}
	if o := c.fourcc.Opaque(); o != dmabuf.XRGB8888 && o != dmabuf.XBGR8888 {
		return fmt.Errorf("%w: it offers format %v, size %dx%d", ErrRefused, c.fourcc, c.w, c.h)
	}
	buf, err := shmfallback.Alloc(uint32(c.w), uint32(c.h), c.fourcc, "westoncap")
	if err != nil {
		return err
	}
	fd, err := buf.Planes[0].FD.Dup()
	if err != nil {
		buf.Release()
		return err
	}
	if c.buf != nil {
		c.wl.Destroy(&c.conn.Out)
		c.buf.Release()
	}
	c.buf = buf
	out := &c.conn.Out
	pool := proto.WlShmPool(c.newID())
	c.shm.CreatePool(out, pool, fd, int32(buf.Size(0)))
	c.wl = proto.WlBuffer(c.newID())
	// weston's GL renderer writes rows without padding whatever the stride says.
	pool.CreateBuffer(out, c.wl, 0, c.w, c.h, 4*c.w, shmFormat(c.fourcc))
	pool.Destroy(out)
	return nil
}

// shmFormat is the wl_shm.format of a fourcc: the same number, but for two.
func shmFormat(f dmabuf.Fourcc) proto.WlShmFormat {
	switch f {
	case dmabuf.ARGB8888:
		return proto.WlShmFormatArgb8888
	case dmabuf.XRGB8888:
		return proto.WlShmFormatXrgb8888
	}
	return proto.WlShmFormat(f)
}

func (c *Camera) roundtrip() error {
	c.sync, c.synced = c.newID(), false
	proto.WlDisplay(wire.DisplayID).Sync(&c.conn.Out, proto.WlCallback(c.sync))
	return c.wait(&c.synced)
}

// wait sends what is pending and reads until *done.
func (c *Camera) wait(done *bool) error {
	end := time.Now().Add(Timeout)
	for {
		if err := c.conn.Flush(); err != nil {
			return err
		}
		if err := c.readAll(); err != nil || *done {
			return err
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("%w within %v", ErrTimeout, Timeout)
		}
		events := int16(unix.POLLIN)
		if c.conn.Out.Pending() > 0 {
			events |= unix.POLLOUT
		}
		fds := []unix.PollFd{{Fd: int32(c.conn.FD()), Events: events}}
		if _, err := unix.Poll(fds, int(left/time.Millisecond)+1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (c *Camera) readAll() error {
	for {
		n, err := c.conn.Receive()
		if err != nil || n == 0 {
			return err
		}
		for {
			m, ok, err := c.conn.Next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if err := c.event(m); err != nil {
				return err
			}
		}
	}
}

func (c *Camera) event(m wire.Message) error {
	switch m.Object {
	case wire.DisplayID:
		if m.Opcode != 0 {
			return nil // delete_id: ids are not used again
		}
		var ev proto.WlDisplayErrorEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		return fmt.Errorf("%w: object %d, error %d: %s", ErrRefused, ev.ObjectId, ev.Code, ev.Message)
	case registryID:
		var ev proto.WlRegistryGlobalEvent
		if m.Opcode != proto.EvWlRegistryGlobal {
			return nil
		}
		if err := ev.Decode(m); err != nil {
			return err
		}
		if _, ok := c.globals[ev.Interface]; !ok {
			c.globals[ev.Interface] = ev.Name
		}
	case c.sync:
		c.synced = true
	case c.source:
		return c.sourceEvent(m)
	}
	return nil
}

func (c *Camera) sourceEvent(m wire.Message) error {
	d := m.Decoder()
	switch m.Opcode {
	case evFormat:
		c.fourcc = dmabuf.Fourcc(d.Uint())
	case evSize:
		c.w, c.h = d.Int(), d.Int()
	case evFailed:
		c.why = d.OptString()
		fallthrough
	case evComplete, evRetry:
		c.result, c.done = m.Opcode, true
	}
	return d.Err()
}

package relay

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// wp_linux_drm_syncobj_v1 ends here: fences of the guest mean nothing on the host. A
// commit is held back until its acquire point has signalled, and the release point is
// signalled when the host releases the buffer.

// syncName is the name of the global, which no host gives out.
const syncName = 0xfffffff0

// syncInterface is the global's interface.
var syncInterface = proto.IWpLinuxDrmSyncobjManagerV1.String()

// maxTimelines bounds the timelines of a client.
const maxTimelines = 4096

// syncDevice makes a client's timelines. Safe for concurrent use.
type syncDevice struct {
	mu        sync.Mutex
	dev       *dmabuf.SyncDevice
	timelines map[*timeline]struct{}
}

// timeline is a wp_linux_drm_syncobj_timeline_v1. It lives as long as a point of it
// waits to be signalled.
type timeline struct {
	d    *syncDevice
	t    *dmabuf.Timeline
	refs int
}

// syncPoint is a point on a timeline, which it holds a reference to.
type syncPoint struct {
	t     *timeline
	point uint64
}

// syncSurface is a wp_linux_drm_syncobj_surface_v1.
type syncSurface struct {
	id               wire.ID
	s                *surface // nil once the surface is gone
	acquire, release *syncPoint
}

func (d *syncDevice) add(fd *dmabuf.FD) (*timeline, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.timelines) >= maxTimelines {
		return nil, fmt.Errorf("%w: %d timelines", ErrLimit, maxTimelines)
	}
	t, err := d.dev.ImportTimeline(fd)
	if err != nil {
		return nil, err
	}
	tl := &timeline{d: d, t: t, refs: 1}
	d.timelines[tl] = struct{}{}
	return tl, nil
}

// close frees the device and what is left.
func (d *syncDevice) close() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for t := range d.timelines {
		t.t.Destroy()
		t.t = nil
	}
	clear(d.timelines)
	_ = d.dev.Close()
}

func (t *timeline) at(point uint64) *syncPoint {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	t.refs++
	return &syncPoint{t, point}
}

func (t *timeline) drop() {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	t.dropLocked()
}

func (t *timeline) dropLocked() {
	t.refs--
	if t.refs == 0 && t.t != nil {
		t.t.Destroy()
		t.t = nil
		delete(t.d.timelines, t)
	}
}

// drop lets go of the point. nil is no point.
func (p *syncPoint) drop() {
	if p != nil {
		p.t.drop()
	}
}

// signal signals the point and lets go of it.
func (p *syncPoint) signal() {
	p.t.d.mu.Lock()
	defer p.t.d.mu.Unlock()
	if p.t.t != nil {
		// It fails for a point that is not ahead of the timeline's, which the client has
		// signalled by itself then.
		_ = p.t.t.Signal(p.point)
	}
	p.t.dropLocked()
}

// waitStep is how often a wait looks whether it is still wanted.
const waitStep = 100 // milliseconds

// wait waits until the point has signalled, the client has gone (wire.ErrClosed), or
// stop closes (errStopped).
func (p *syncPoint) wait(stop <-chan struct{}, client int) error {
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make an eventfd: %w", err)
	}
	fd := dmabuf.NewFD(raw, "acquire point")
	defer func() { _ = fd.Close() }()
	p.t.d.mu.Lock()
	err = os.ErrClosed
	if p.t.t != nil {
		err = p.t.t.Notify(p.point, fd)
	}
	p.t.d.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		polls := []unix.PollFd{{Fd: int32(raw), Events: unix.POLLIN}, {Fd: int32(client), Events: unix.POLLRDHUP}}
		_, err := unix.Poll(polls, waitStep)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for an acquire point: %w", err)
		case polls[0].Revents != 0:
			return nil
		case polls[1].Revents != 0:
			return wire.ErrClosed
		}
		select {
		case <-stop:
			return errStopped
		default:
		}
	}
}

// offerSync tells a new registry of the global.
func (c *Client) offerSync(registry wire.ID) error {
	if c.sync == nil {
		return nil
	}
	return c.out.write(func(w *wire.Writer) {
		proto.WlRegistry(registry).SendGlobal(w, syncName, syncInterface, 1)
	})
}

func syncGetSurface(c *Client, o *object, m wire.Message) (bool, error) {
	var req proto.WpLinuxDrmSyncobjManagerV1GetSurfaceRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	s, err := c.surface(wire.ID(req.Surface))
	if err != nil {
		return false, err
	}
	if s.sync != nil {
		return false, &ProtocolError{Object: o.id, Code: uint32(proto.WpLinuxDrmSyncobjManagerV1ErrorSurfaceExists),
			Text: fmt.Sprintf("wl_surface %d has a synchronization object", s.id)}
	}
	s.sync = &syncSurface{id: wire.ID(req.Id), s: s}
	c.objects.setData(c.objects.get(s.sync.id), s.sync)
	return false, nil
}

func syncImport(c *Client, o *object, m wire.Message) (bool, error) {
	var req proto.WpLinuxDrmSyncobjManagerV1ImportTimelineRequest
	if err := req.Decode(m); err != nil {
		return false, err
	}
	defer func() { _ = req.Fd.Close() }()
	t, err := c.sync.add(req.Fd)
	if err != nil {
		return false, &ProtocolError{Object: o.id, Code: uint32(proto.WpLinuxDrmSyncobjManagerV1ErrorInvalidTimeline), Text: err.Error()}
	}
	c.objects.setData(c.objects.get(wire.ID(req.Id)), t)
	return false, nil
}

func timelineDestroy(c *Client, o *object, _ wire.Message) (bool, error) {
	o.data.(*timeline).drop()
	return false, nil
}

func syncSurfaceDestroy(_ *Client, o *object, _ wire.Message) (bool, error) {
	ss := o.data.(*syncSurface)
	ss.dropPoints()
	if ss.s != nil {
		ss.s.sync = nil
	}
	return false, nil
}

func (ss *syncSurface) dropPoints() {
	ss.acquire.drop()
	ss.release.drop()
	ss.acquire, ss.release = nil, nil
}

func (ss *syncSurface) fail(code proto.WpLinuxDrmSyncobjSurfaceV1Error, text string) error {
	return &ProtocolError{Object: ss.id, Code: uint32(code), Text: text}
}

func syncSetPoint(c *Client, o *object, m wire.Message) (bool, error) {
	ss := o.data.(*syncSurface)
	var req proto.WpLinuxDrmSyncobjSurfaceV1SetAcquirePointRequest // both requests are alike
	if err := req.Decode(m); err != nil {
		return false, err
	}
	if ss.s == nil {
		return false, ss.fail(proto.WpLinuxDrmSyncobjSurfaceV1ErrorNoSurface, "the wl_surface is gone")
	}
	to, err := c.objects.live(wire.ID(req.Timeline))
	if err != nil {
		return false, err
	}
	t, ok := to.data.(*timeline)
	if !ok {
		return false, displayError(codeInvalidObject, "object %d is not a timeline", req.Timeline)
	}
	p := t.at(uint64(req.PointHi)<<32 | uint64(req.PointLo))
	if m.Opcode == proto.OpWpLinuxDrmSyncobjSurfaceV1SetAcquirePoint {
		ss.acquire.drop()
		ss.acquire = p
	} else {
		ss.release.drop()
		ss.release = p
	}
	return false, nil
}

// syncCommit checks the points of a commit as the protocol says, waits for the acquire
// point, and returns the release point, nil if there is none.
func (c *Client) syncCommit(s *surface) (*syncPoint, error) {
	ss := s.sync
	if ss == nil {
		return nil, nil
	}
	switch buf := s.pending.buffer; {
	case s.pending.buffer == nil || !s.pending.attached:
		if ss.acquire != nil || ss.release != nil {
			return nil, ss.fail(proto.WpLinuxDrmSyncobjSurfaceV1ErrorNoBuffer, "points without a buffer")
		}
		return nil, nil
	case !buf.dma:
		return nil, ss.fail(proto.WpLinuxDrmSyncobjSurfaceV1ErrorUnsupportedBuffer, "not a buffer of zwp_linux_dmabuf_v1")
	case ss.acquire == nil:
		return nil, ss.fail(proto.WpLinuxDrmSyncobjSurfaceV1ErrorNoAcquirePoint, "no acquire point")
	case ss.release == nil:
		return nil, ss.fail(proto.WpLinuxDrmSyncobjSurfaceV1ErrorNoReleasePoint, "no release point")
	case ss.acquire.t == ss.release.t && ss.acquire.point >= ss.release.point:
		return nil, ss.fail(proto.WpLinuxDrmSyncobjSurfaceV1ErrorConflictingPoints, "the acquire point is not before the release point")
	}
	// What stands before the commit need not wait.
	if err := c.flush(); err != nil {
		return nil, err
	}
	acquire, release := ss.acquire, ss.release
	ss.acquire, ss.release = nil, nil
	defer acquire.drop()
	if err := acquire.wait(c.stop, c.in.FD()); err != nil {
		release.drop()
		if errors.Is(err, wire.ErrClosed) || errors.Is(err, errStopped) {
			return nil, err
		}
		return nil, displayError(codeImplementation, "%v", err)
	}
	return release, nil
}

// errStopped ends a client that was told to end.
var errStopped = errors.New("stopped")

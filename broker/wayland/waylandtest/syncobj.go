package waylandtest

import (
	"fmt"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// syncPoint is a point of a client's timeline.
type syncPoint struct {
	tl    *dmabuf.Timeline
	point uint64
}

// surfaceSync is a wp_linux_drm_syncobj_surface_v1 and its pending points.
type surfaceSync struct {
	s                *surface
	acquire, release *syncPoint
}

func importTimeline(cl *client, _ *object, m wire.Message) error {
	var a proto.WpLinuxDrmSyncobjManagerV1ImportTimelineRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	tl, err := cl.c.cfg.Sync.ImportTimeline(a.Fd)
	_ = a.Fd.Close()
	if err != nil {
		return err
	}
	cl.timelines = append(cl.timelines, tl) // points outlive the object
	cl.objects[wire.ID(a.Id)].data = tl
	return nil
}

func getSyncSurface(cl *client, _ *object, m wire.Message) error {
	var a proto.WpLinuxDrmSyncobjManagerV1GetSurfaceRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := of(cl, wire.ID(a.Surface))
	if s.sync != nil {
		return fmt.Errorf("the surface has such an object already")
	}
	s.sync = &surfaceSync{s: s}
	cl.objects[wire.ID(a.Id)].data = s.sync
	return nil
}

func destroySyncSurface(_ *client, o *object, _ wire.Message) error {
	o.data.(*surfaceSync).s.sync = nil
	return nil
}

func setAcquire(cl *client, o *object, m wire.Message) error {
	var a proto.WpLinuxDrmSyncobjSurfaceV1SetAcquirePointRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	o.data.(*surfaceSync).acquire = cl.point(a.Timeline, a.PointHi, a.PointLo)
	return nil
}

func setRelease(cl *client, o *object, m wire.Message) error {
	var a proto.WpLinuxDrmSyncobjSurfaceV1SetReleasePointRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	o.data.(*surfaceSync).release = cl.point(a.Timeline, a.PointHi, a.PointLo)
	return nil
}

func (cl *client) point(tl proto.WpLinuxDrmSyncobjTimelineV1, hi, lo uint32) *syncPoint {
	return &syncPoint{cl.objects[wire.ID(tl)].data.(*dmabuf.Timeline), uint64(hi)<<32 | uint64(lo)}
}

// applySync checks a commit's points against the protocol and notes them.
func (cl *client) applySync(s *surface, k *Commit) error {
	k.Explicit, k.Acquired = false, false
	x := s.sync
	if x == nil {
		if k.Attached && k.Buffer != nil {
			k.Buffer.release = nil
		}
		return nil
	}
	acquire, release := x.acquire, x.release
	x.acquire, x.release = nil, nil
	attached := k.Attached && k.Buffer != nil
	if attached != (acquire != nil) || attached != (release != nil) {
		return fmt.Errorf("attached %v, acquire point %v, release point %v", attached, acquire != nil, release != nil)
	}
	if !attached {
		return nil
	}
	if k.Buffer.Shm {
		return fmt.Errorf("explicit synchronisation of shared memory")
	}
	if acquire.tl == release.tl && acquire.point >= release.point {
		return fmt.Errorf("acquire point %d, release point %d", acquire.point, release.point)
	}
	v, err := acquire.tl.Value()
	if err != nil {
		return err
	}
	k.Explicit, k.Acquired = true, v >= acquire.point
	k.Buffer.release = release
	return nil
}

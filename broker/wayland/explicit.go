package wayland

import (
	"errors"
	"path/filepath"
	"sort"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// explicit is what wp_linux_drm_syncobj_v1 needs beside the connection: a DRM node
// that makes timelines, and an eventfd that tells when one has moved.
type explicit struct {
	dev  *dmabuf.SyncDevice
	wake *dmabuf.FD
}

// openExplicit finds a render node that can; nil if none does. Syncobjs are the
// kernel's own, so any node does.
func openExplicit(log *zap.Logger) *explicit {
	nodes, _ := filepath.Glob("/dev/dri/renderD*") // only a bad pattern fails
	sort.Strings(nodes)
	for _, node := range nodes {
		dev, err := dmabuf.OpenSyncDevice(node)
		if err != nil {
			log.Debug("no explicit synchronisation", zap.Error(err))
			continue
		}
		raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			_ = dev.Close()
			return nil
		}
		return &explicit{dev, dmabuf.NewFD(raw, "wayland syncobj")}
	}
	return nil
}

func (x *explicit) close() {
	if x != nil {
		_ = errors.Join(x.dev.Close(), x.wake.Close())
	}
}

// timeline is a syncobj that the compositor knows, and its last point in use.
type timeline struct {
	own   *dmabuf.Timeline
	wl    proto.WpLinuxDrmSyncobjTimelineV1
	point uint64
}

func (se *session) newTimeline() (*timeline, error) {
	own, err := se.explicit.dev.NewTimeline()
	if err != nil {
		return nil, err
	}
	fd, err := own.Export()
	if err != nil {
		own.Destroy()
		return nil, err
	}
	t := &timeline{own: own, wl: proto.WpLinuxDrmSyncobjTimelineV1(se.objs.add(proto.IWpLinuxDrmSyncobjTimelineV1, ignore{}))}
	se.syncobjs.ImportTimeline(se.out(), t.wl, fd)
	return t, nil
}

// destroy forgets the timeline on both sides; nil does nothing.
func (t *timeline) destroy(se *session) {
	if t != nil {
		t.wl.Destroy(se.out())
		se.objs.destroyed(wire.ID(t.wl))
		t.own.Destroy()
	}
}

// abandon forgets it without a word to the compositor.
func (t *timeline) abandon() {
	if t != nil {
		t.own.Destroy()
	}
}

// bindExplicit binds the manager if there is a node to go with it.
func (se *session) bindExplicit(g proto.WlRegistryGlobalEvent) {
	if !se.l.sought {
		se.l.sought = true
		se.l.explicit = openExplicit(se.s.log)
	}
	if se.explicit = se.l.explicit; se.explicit != nil {
		se.syncobjs = proto.WpLinuxDrmSyncobjManagerV1(se.bind(g, proto.IWpLinuxDrmSyncobjManagerV1, 1, nil))
	}
}

// windowSync is a window's part of explicit synchronisation.
type windowSync struct {
	wl      proto.WpLinuxDrmSyncobjSurfaceV1 // 0 while the surface is synchronised implicitly
	acquire *timeline
}

// synchronise sets the points of the commit that shows imp: the compositor waits for
// the acquire point, which follows the work that is queued on the dma-buf, and signals
// the release point when it has read. Shared memory has no points, and a surface with
// this object takes nothing else.
func (win *window) synchronise(imp *imported) {
	se := win.se
	imp.explicit = false
	if se.explicit == nil {
		return
	}
	if imp.buf.Kind != dmabuf.KindDMABuf {
		win.implicit()
		return
	}
	if err := win.setPoints(imp); err != nil {
		se.s.log.Warn("back to implicit synchronisation", zap.Int("head", win.h.n), zap.Error(err))
		win.implicit()
		se.explicit = nil
	}
}

func (win *window) setPoints(imp *imported) (err error) {
	se, s := win.se, &win.sync
	if s.acquire == nil {
		if s.acquire, err = se.newTimeline(); err != nil {
			return err
		}
	}
	if imp.release == nil {
		if imp.release, err = se.newTimeline(); err != nil {
			return err
		}
	}
	for i := range imp.buf.Planes { // a point comes after all before it
		if err := s.acquire.own.Follow(imp.buf.Planes[i].FD, s.acquire.point+1); err != nil {
			return err
		}
		s.acquire.point++
	}
	if err := imp.release.own.Notify(imp.release.point+1, se.l.explicit.wake); err != nil {
		return err
	}
	imp.release.point++
	imp.explicit = true
	out := se.out()
	if s.wl == 0 {
		s.wl = proto.WpLinuxDrmSyncobjSurfaceV1(se.objs.add(proto.IWpLinuxDrmSyncobjSurfaceV1, ignore{}))
		se.syncobjs.GetSurface(out, s.wl, win.surface)
	}
	a, r := s.acquire, imp.release
	s.wl.SetAcquirePoint(out, a.wl, uint32(a.point>>32), uint32(a.point))
	s.wl.SetReleasePoint(out, r.wl, uint32(r.point>>32), uint32(r.point))
	return nil
}

// implicit takes the window's surface back.
func (win *window) implicit() {
	if s := &win.sync; s.wl != 0 {
		s.wl.Destroy(win.se.out())
		win.se.objs.destroyed(wire.ID(s.wl))
		s.wl = 0
	}
}

// released settles the imports whose release point has signalled.
func (se *session) released() {
	var count [8]byte
	_, _ = unix.Read(se.l.explicit.wake.Int(), count[:])
	for _, imp := range se.imports {
		if !imp.explicit || !imp.busy {
			continue
		}
		v, err := imp.release.own.Value()
		if err != nil {
			se.s.log.Warn("a buffer stays with the compositor", zap.Error(err))
			continue
		}
		if v >= imp.release.point {
			imp.busy = false
			imp.settle()
		}
	}
}

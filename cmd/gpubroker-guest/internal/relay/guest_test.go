package relay_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/inguest"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/relay"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/shm"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// gpuRig is a rig in a guest with a GPU and an import device.
func gpuRig(t *testing.T) (r *rig, gpu *drm.Device, path string) {
	t.Helper()
	inguest.Need(t)
	nodes, err := drm.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	var im *shm.Importer
	for _, n := range nodes {
		if n.Has3D {
			path = n.Path
		} else if im, err = shm.OpenImporter(n.Path); err != nil {
			t.Fatal(err)
		}
	}
	if gpu, err = drm.Open(path); err != nil {
		t.Fatal(err)
	}
	if err := gpu.Name("client"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close(); _ = gpu.Close() })
	r = newRig(t, func(cfg *relay.Config) {
		cfg.GPU = func() (*drm.Device, error) { return gpu, nil }
		cfg.SyncNode = path
		cfg.Store.Import = im
	})
	return r, gpu, path
}

// texture is a buffer that another program has made on the GPU.
func texture(t *testing.T, path string) (h *drm.Handle, fd *dmabuf.FD) {
	t.Helper()
	d, err := drm.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Name("another program"); err != nil {
		t.Fatal(err)
	}
	if h, err = d.CreateBlob(drm.BlobHost3D, drm.BlobMappable|drm.BlobShareable, 1<<16, 0); err != nil {
		t.Fatal(err)
	}
	if fd, err = h.Export(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = fd.Close(), d.Close() })
	return h, fd
}

// TestGuestDMABuf names a buffer of the GPU by its resource id, for each plane, and one
// of another device by the import device's.
func TestGuestDMABuf(t *testing.T) {
	r, _, path := gpuRig(t)
	r.setup()
	h, fd := texture(t, path)
	params := proto.ZwpLinuxBufferParamsV1(idParams)
	r.send(func(w *wire.Writer) {
		proto.ZwpLinuxDmabufV1(idDmabuf).CreateParams(w, idParams)
		params.Add(w, dup(t, fd), 0, 0, 512, 0, 0)
		params.Add(w, dup(t, fd), 1, 32768, 512, 0, 0)
		params.CreateImmed(w, idBuffer, 128, 64, uint32(dmabuf.NV12), 0)
		params.Destroy(w)
		proto.WlBuffer(idBuffer).Destroy(w)
	})
	r.want(idDmabuf, proto.OpZwpLinuxDmabufV1CreateParams)
	r.want(idParams, proto.OpZwpLinuxBufferParamsV1Add)
	r.want(idParams, proto.OpZwpLinuxBufferParamsV1Add)
	for _, it := range r.items {
		if it.Kind != link.ItemResource || it.Device != link.DeviceGPU || it.ID != h.Resource() {
			t.Errorf("item %+v, want resource %d of the GPU", it, h.Resource())
		}
	}
	if len(r.items) != 2 {
		t.Errorf("%d items, want 2: %+v", len(r.items), r.items)
	}
	r.want(idParams, proto.OpZwpLinuxBufferParamsV1CreateImmed)
	r.want(idParams, proto.OpZwpLinuxBufferParamsV1Destroy)
	r.want(idBuffer, proto.OpWlBufferDestroy)

	udma, err := dmabuf.OpenUDMABuf()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udma.Close() }()
	mem, err := dmabuf.NewMemfd("foreign", 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	foreign, err := udma.Create(dmabuf.Span{FD: mem, Size: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	r.items = nil
	r.send(func(w *wire.Writer) {
		proto.ZwpLinuxDmabufV1(idDmabuf).CreateParams(w, idParams+200)
		proto.ZwpLinuxBufferParamsV1(idParams+200).Add(w, foreign, 0, 0, 512, 0, 0)
	})
	r.want(idDmabuf, proto.OpZwpLinuxDmabufV1CreateParams)
	r.want(idParams+200, proto.OpZwpLinuxBufferParamsV1Add)
	if len(r.items) != 1 || r.items[0].Device != link.DeviceImport || r.items[0].ID == 0 {
		t.Errorf("items %+v, want a resource of the import device", r.items)
	}
}

// TestGuestShm shares a client's pages.
func TestGuestShm(t *testing.T) {
	r, _, _ := gpuRig(t)
	r.setup()
	fd := memfd(t, 250000)
	defer func() { _ = fd.Close() }()
	r.shmBuffer(fd, 250000, 0, 250, 250, 1000)
	if len(r.items) != 1 || r.items[0].Kind != link.ItemResource || r.items[0].Device != link.DeviceImport {
		t.Fatalf("items %+v", r.items)
	}
	s := proto.WlSurface(idSurface)
	r.send(func(w *wire.Writer) { s.Attach(w, idBuffer, 0, 0); s.Damage(w, 0, 0, 250, 250); s.Commit(w) })
	r.want(idSurface, proto.OpWlSurfaceAttach)
	r.want(idSurface, proto.OpWlSurfaceDamage)
	r.want(idSurface, proto.OpWlSurfaceCommit)
	if n := r.stats.Frames[shm.TierImport].Load(); n != 1 {
		t.Errorf("%d frames counted", n)
	}
}

// TestGuestSync holds a commit back until the client's work is done, and tells when the
// host has.
func TestGuestSync(t *testing.T) {
	r, _, path := gpuRig(t)
	const idSync, idTimeline, idSyncSurface = 30, 31, 32
	dev, err := dmabuf.OpenSyncDevice(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dev.Close() }()
	mine, err := dev.NewTimeline()
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Destroy()
	export, err := mine.Export()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = export.Close() }()

	r.setup()
	var global proto.WlRegistryGlobalEvent
	if err := global.Decode(r.wantEvent(idRegistry, proto.EvWlRegistryGlobal)); err != nil || global.Interface != "wp_linux_drm_syncobj_manager_v1" {
		t.Fatalf("global %+v (%v)", global, err)
	}
	_, fd := texture(t, path)
	s, ss := proto.WlSurface(idSurface), proto.WpLinuxDrmSyncobjSurfaceV1(idSyncSurface)
	params := proto.ZwpLinuxBufferParamsV1(idParams)
	r.send(func(w *wire.Writer) {
		proto.WlRegistry(idRegistry).Bind(w, global.Name, global.Interface, 1, idSync)
		proto.WpLinuxDrmSyncobjManagerV1(idSync).ImportTimeline(w, idTimeline, dup(t, export))
		proto.WpLinuxDrmSyncobjManagerV1(idSync).GetSurface(w, idSyncSurface, idSurface)
		proto.ZwpLinuxDmabufV1(idDmabuf).CreateParams(w, idParams)
		params.Add(w, dup(t, fd), 0, 0, 512, 0, 0)
		params.CreateImmed(w, idBuffer, 128, 64, uint32(dmabuf.XRGB8888), 0)
		s.Attach(w, idBuffer, 0, 0)
		ss.SetAcquirePoint(w, idTimeline, 0, 5)
		ss.SetReleasePoint(w, idTimeline, 0, 6)
		// What is destroyed is still waited for and signalled.
		proto.WpLinuxDrmSyncobjTimelineV1(idTimeline).Destroy(w)
		s.Commit(w)
	})
	r.want(idDmabuf, proto.OpZwpLinuxDmabufV1CreateParams)
	r.want(idParams, proto.OpZwpLinuxBufferParamsV1Add)
	r.want(idParams, proto.OpZwpLinuxBufferParamsV1CreateImmed)
	r.want(idSurface, proto.OpWlSurfaceAttach)
	if id := binary.LittleEndian.Uint32(r.wantEvent(1, proto.EvWlDisplayDeleteId).Body); id != idTimeline {
		t.Errorf("delete_id %d, want %d", id, idTimeline)
	}
	select {
	case f := <-r.frames:
		t.Fatalf("the host got %+v before the acquire point", f)
	case <-time.After(200 * time.Millisecond):
	}
	if err := mine.Signal(5); err != nil {
		t.Fatal(err)
	}
	r.want(idSurface, proto.OpWlSurfaceCommit)
	if v, err := mine.Value(); err != nil || v != 5 {
		t.Errorf("the timeline is at %d (%v), want 5", v, err)
	}
	r.event(func(w *wire.Writer) { proto.WlBuffer(idBuffer).SendRelease(w) })
	r.wantEvent(idBuffer, proto.EvWlBufferRelease)
	if v, err := mine.Value(); err != nil || v != 6 {
		t.Errorf("the timeline is at %d (%v) after the release, want 6", v, err)
	}

	// A client that never signals can still leave.
	r.send(func(w *wire.Writer) {
		proto.WpLinuxDrmSyncobjManagerV1(idSync).ImportTimeline(w, idTimeline, dup(t, export))
		s.Attach(w, idBuffer, 0, 0)
		ss.SetAcquirePoint(w, idTimeline, 0, 100)
		ss.SetReleasePoint(w, idTimeline, 0, 101)
		s.Commit(w)
	})
	r.want(idSurface, proto.OpWlSurfaceAttach)
}

// TestGuestSyncErrors breaks the rules of the protocol.
func TestGuestSyncErrors(t *testing.T) {
	const idSync, idTimeline, idSyncSurface = 30, 31, 32
	for name, c := range map[string]struct {
		object wire.ID
		code   uint32
		do     func(r *rig, w *wire.Writer)
	}{
		"not a timeline": {idSync, 1, func(r *rig, w *wire.Writer) {
			proto.WpLinuxDrmSyncobjManagerV1(idSync).ImportTimeline(w, idTimeline, memfd(r.t, 1))
		}},
		"twice": {idSync, 0, func(_ *rig, w *wire.Writer) {
			proto.WpLinuxDrmSyncobjManagerV1(idSync).GetSurface(w, idSyncSurface, idSurface)
			proto.WpLinuxDrmSyncobjManagerV1(idSync).GetSurface(w, idSyncSurface+1, idSurface)
		}},
		"shared memory": {idSyncSurface, 2, func(r *rig, w *wire.Writer) {
			proto.WpLinuxDrmSyncobjManagerV1(idSync).GetSurface(w, idSyncSurface, idSurface)
			proto.WlShm(idShm).CreatePool(w, idPool, memfd(r.t, 4096), 4096)
			proto.WlShmPool(idPool).CreateBuffer(w, idBuffer, 0, 32, 32, 128, 0)
			proto.WlSurface(idSurface).Attach(w, idBuffer, 0, 0)
			proto.WlSurface(idSurface).Commit(w)
		}},
		"no surface": {idSyncSurface, 1, func(_ *rig, w *wire.Writer) {
			proto.WpLinuxDrmSyncobjManagerV1(idSync).GetSurface(w, idSyncSurface, idSurface)
			proto.WlSurface(idSurface).Destroy(w)
			proto.WpLinuxDrmSyncobjSurfaceV1(idSyncSurface).SetAcquirePoint(w, idTimeline, 0, 1)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r, _, _ := gpuRig(t)
			r.setup()
			r.send(func(w *wire.Writer) {
				proto.WlRegistry(idRegistry).Bind(w, 0xfffffff0, "wp_linux_drm_syncobj_manager_v1", 1, idSync)
				c.do(r, w)
			})
			t.Log(r.wantError(c.object, c.code))
		})
	}
}

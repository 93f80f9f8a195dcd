package vhostusertest

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// barBase is the guest-physical address of the host-visible window.
const barBase = 0x40_0000_0000

// barUser is where the window pretends to lie in the front-end's address space.
const barUser = 0x7e00_0000_0000

// Mapping is a file in the host-visible window.
type Mapping struct {
	vhostuser.MMap
	fd *dmabuf.FD
}

func (m *Mapping) region() vhostuser.MemRegion {
	return vhostuser.MemRegion{GPA: barBase + m.Offset, Size: m.Len, UserAddr: barUser + m.Offset, MmapOffset: m.FDOffset}
}

// openChannel sends SET_BACKEND_REQ_FD and serves the other end.
func (f *Frontend) openChannel() error {
	ours, theirs, err := Pair()
	if err != nil {
		return err
	}
	defer func() { _ = theirs.Close() }()
	watch, err := ours.Dup()
	if err != nil {
		_ = ours.Close()
		return err
	}
	if f.backend, err = vhostuser.FromFD(ours); err != nil {
		_ = watch.Close()
		return err
	}
	f.serving.Add(1)
	go f.serveChannel(f.backend, watch)
	return f.set(true, vhostuser.ReqSetBackendReqFD, nil, theirs)
}

// serveChannel serves requests as QEMU's main loop does: it sees that one is there,
// takes the big lock, and only then reads it. watch is another descriptor of conn's
// socket and is closed at the end.
func (f *Frontend) serveChannel(conn *vhostuser.Conn, watch *dmabuf.FD) {
	defer f.serving.Done()
	defer func() { _ = watch.Close() }()
	for f.readable(watch) {
		if !f.serveNext(conn) {
			return // the back-end or Quit closed it
		}
	}
}

// readable waits for something to read; it returns false once Quit was called.
func (f *Frontend) readable(fd *dmabuf.FD) bool {
	for !f.quitting.Load() {
		p := []unix.PollFd{{Fd: int32(fd.Int()), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 50); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return true
		}
	}
	return false
}

func (f *Frontend) serveNext(conn *vhostuser.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := conn.Read()
	if err != nil {
		return false
	}
	f.serveRequest(conn, m)
	m.CloseFDs()
	return true
}

// serveRequest is called with the big lock.
func (f *Frontend) serveRequest(conn *vhostuser.Conn, m *vhostuser.Message) {
	req := vhostuser.BackendRequest(m.Request)
	if req > vhostuser.BackendShmemUnmap { // QEMU says so in its log, and no more
		f.unknown++
		return
	}
	if !f.started {
		f.problem("%v while the device is stopped: QEMU 11.1 crashes", req)
	}
	var status error
	changed := false
	switch req {
	case vhostuser.BackendConfigChange:
		f.changes++
		if f.cfg.Profile.ConfigChangeRefused {
			status = fmt.Errorf("unhandled back-end config change")
		}
	case vhostuser.BackendShmemMap:
		status = f.mapShmem(m)
		changed = status == nil
	case vhostuser.BackendShmemUnmap:
		status = f.unmapShmem(m)
		changed = status == nil
	default:
		f.problem("unknown back-end request %d", m.Request)
		status = fmt.Errorf("unknown")
	}
	if m.NeedReply() {
		var code uint64
		if status != nil {
			code = 1
		}
		if err := conn.Send(m.Request, vhostuser.FlagReply, vhostuser.AppendU64(nil, code)); err != nil {
			return
		}
	}
	if !changed {
		return
	}
	if f.cfg.BeforeCommit != nil {
		f.cfg.BeforeCommit()
	}
	// Only after the reply does QEMU commit the memory change, and waits for it.
	if err := f.syncMemory(); err != nil && !f.quitting.Load() {
		f.problem("memory change after %v: %v", req, err)
	}
}

func (f *Frontend) mapShmem(m *vhostuser.Message) error {
	mm, err := vhostuser.DecodeMMap(m.Payload)
	if err != nil {
		return err
	}
	if len(m.FDs) != 1 {
		return fmt.Errorf("SHMEM_MAP with %d descriptors", len(m.FDs))
	}
	size := f.shmem.Sizes[mm.ID]
	if mm.Len == 0 || mm.Offset > size || mm.Len > size-mm.Offset {
		return fmt.Errorf("range %#x+%#x outside of region %d of %#x bytes", mm.Offset, mm.Len, mm.ID, size)
	}
	for i := range f.maps {
		o := &f.maps[i]
		if o.ID == mm.ID && mm.Offset < o.Offset+o.Len && o.Offset < mm.Offset+mm.Len {
			return fmt.Errorf("overlaps %#x+%#x", o.Offset, o.Len)
		}
	}
	end, err := unix.Seek(m.FDs[0].Int(), 0, unix.SEEK_END)
	if err != nil || uint64(end) < mm.FDOffset+mm.Len {
		return fmt.Errorf("file of %#x bytes, mapping ends at %#x: %w", end, mm.FDOffset+mm.Len, err)
	}
	f.maps = append(f.maps, Mapping{MMap: mm, fd: m.TakeFD(0)})
	return nil
}

func (f *Frontend) unmapShmem(m *vhostuser.Message) error {
	mm, err := vhostuser.DecodeMMap(m.Payload)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(f.maps, func(o Mapping) bool { return o.ID == mm.ID && o.Offset == mm.Offset && o.Len == mm.Len })
	if i < 0 {
		return fmt.Errorf("no mapping at %#x+%#x", mm.Offset, mm.Len)
	}
	_ = f.maps[i].fd.Close()
	f.maps = slices.Delete(f.maps, i, i+1)
	return nil
}

// dropMaps is what a virtio reset does to the window: QEMU drops every mapping on
// its own, while the device does not run, so that the back-end is not told.
func (f *Frontend) dropMaps() {
	for i := range f.maps {
		if r := f.maps[i].region(); slices.Contains(f.sent, r) {
			f.stale = append(f.stale, r)
		}
		_ = f.maps[i].fd.Close()
	}
	f.maps = nil
}

// Mappings lists what is in the host-visible window now.
func (f *Frontend) Mappings() []vhostuser.MMap {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]vhostuser.MMap, len(f.maps))
	for i := range f.maps {
		out[i] = f.maps[i].MMap
	}
	return out
}

// WindowGPA is the guest-physical address of an offset in the host-visible
// window.
func WindowGPA(offset uint64) uint64 { return barBase + offset }

// Unknown counts the requests that QEMU does not know.
func (f *Frontend) Unknown() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unknown
}

// ConfigChanges counts the CONFIG_CHANGE_MSG that came.
func (f *Frontend) ConfigChanges() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changes
}

// WriteWindow writes to the host-visible window at offset, as a guest does that
// has mapped it. The bytes must lie in one mapping.
func (f *Frontend) WriteWindow(offset uint64, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.maps {
		m := &f.maps[i]
		if offset < m.Offset || offset+uint64(len(p)) > m.Offset+m.Len {
			continue
		}
		if _, err := unix.Pwrite(m.fd.Int(), p, int64(m.FDOffset+offset-m.Offset)); err != nil {
			return fmt.Errorf("write %d bytes to the window at %#x: %w", len(p), offset, err)
		}
		return nil
	}
	return fmt.Errorf("nothing is mapped at %#x of the window", offset)
}

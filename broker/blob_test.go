package broker_test

import (
	"image/color"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

func modeB(t testing.TB) *machine {
	return newMachine(t, machineConfig{profile: vhostusertest.QEMU11B})
}

func createBlob(hdr virtiogpu.CtrlHdr, id, mem, flags uint32, blobID, size uint64, b *fakeguest.Block) []byte {
	c := virtiogpu.ResourceCreateBlob{CtrlHdr: hdr, ResourceID: id, BlobMem: mem, BlobFlags: flags, BlobID: blobID, Size: size}
	if b == nil {
		return c.Append(nil)
	}
	c.NrEntries = uint32(len(b.Entries))
	cmd := c.Append(nil)
	for _, e := range b.Entries {
		cmd = virtiogpu.MemEntry{Addr: e.Addr, Length: e.Len}.Append(cmd)
	}
	return cmd
}

func (m *machine) hostBlob(id uint32, size uint64) {
	m.t.Helper()
	m.ok(createBlob(virtiogpu.CtrlHdr{}, id, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable, 0, size, nil))
}

func mapBlob(id uint32, offset uint64) []byte {
	return (&virtiogpu.ResourceMapBlob{ResourceID: id, Offset: offset}).Append(nil)
}

func unmapBlob(id uint32) []byte { return (&virtiogpu.ResourceUnmapBlob{ResourceID: id}).Append(nil) }

func scanoutBlob(head, id, w, h, stride, offset uint32, f virtiogpu.Format) []byte {
	return (&virtiogpu.SetScanoutBlob{
		R: rect(0, 0, w, h), ScanoutID: head, ResourceID: id, Width: w, Height: h, Format: f,
		Strides: [4]uint32{stride}, Offsets: [4]uint32{offset},
	}).Append(nil)
}

// TestGuestBlob: a picture in the guest's own scattered pages is shown; without
// udmabuf the damage is copied, once, with stride and offset honoured.
func TestGuestBlob(t *testing.T) {
	m := modeB(t)
	const w, h, stride, offset = 30, 20, 256, 4096 + 64
	size := uint64(16384)
	b, err := m.Pages.Scattered(size)
	if err != nil {
		t.Fatal(err)
	}
	fill(b, [4]byte{9, 9, 9, 9})
	b.WriteAt([]byte{1, 2, 3, 0}, offset+5*stride+7*4)
	m.ok(createBlob(virtiogpu.CtrlHdr{}, 1, virtiogpu.BlobMemGuest, virtiogpu.BlobFlagMappable, 0, size, b))
	m.ok(scanoutBlob(0, 1, w, h, stride, offset, virtiogpu.FormatB8G8R8X8))
	// Linux sends this for its dumb buffers, blobs or not; there is nothing to do.
	m.ok((&virtiogpu.TransferToHost2D{R: rect(0, 0, w, h), ResourceID: 1}).Append(nil))
	m.flush(1, rect(0, 0, w, h))
	if got := pixel(t, m, 0, 7, 5); got != (color.NRGBA{3, 2, 1, 255}) {
		t.Errorf("pixel %v", got)
	}
	b.WriteAt([]byte{4, 5, 6, 0}, offset+5*stride+8*4)
	m.flush(1, rect(8, 5, 1, 1))
	if got := pixel(t, m, 0, 8, 5); got != (color.NRGBA{6, 5, 4, 255}) {
		t.Errorf("pixel %v after damage", got)
	}
	// The other end of the format table: bytes in the opposite order.
	m.ok(scanoutBlob(0, 1, w, h, stride, offset, virtiogpu.FormatX8R8G8B8))
	m.flush(1, rect(0, 0, w, h))
	if got := pixel(t, m, 0, 8, 5); got != (color.NRGBA{5, 6, 0, 255}) {
		t.Errorf("pixel %v as X8R8G8B8", got)
	}
}

// TestHostBlob: what the guest writes to the window is what the display reads,
// without a copy.
func TestHostBlob(t *testing.T) {
	m := modeB(t)
	const w, h = 64, 32
	m.hostBlob(1, w*h*4)
	var info virtiogpu.MapInfo
	if err := info.Decode(m.ok(mapBlob(1, 0x10000))); err != nil {
		t.Fatal(err)
	}
	if info.MapInfo != virtiogpu.MapCacheCached {
		t.Errorf("map info %d", info.MapInfo)
	}
	if err := m.FE.WriteWindow(0x10000+(3*w+5)*4, []byte{7, 8, 9, 0}); err != nil {
		t.Fatal(err)
	}
	m.ok(scanoutBlob(0, 1, w, h, w*4, 0, virtiogpu.FormatB8G8R8X8))
	m.flush(1, rect(0, 0, w, h))
	if got := pixel(t, m, 0, 5, 3); got != (color.NRGBA{9, 8, 7, 255}) {
		t.Errorf("pixel %v", got)
	}
	if st := m.dev.Status(true); st.BytesCopied != 0 || st.Frames.DMABuf+st.Frames.Shm != 1 {
		t.Errorf("%d bytes copied, frames %+v", st.BytesCopied, st.Frames)
	}
	m.ok(unmapBlob(1))
	if n := len(m.FE.Mappings()); n != 0 {
		t.Errorf("%d mappings left", n)
	}
	m.ok(mapBlob(1, 0)) // again, elsewhere
	m.ok((&virtiogpu.ResourceUnref{ResourceID: 1}).Append(nil))
	m.settle()
	if n := len(m.FE.Mappings()); n != 0 {
		t.Errorf("%d mappings outlived their resource", n)
	}
}

// TestBlobCycles: thousands of blobs come and go, with resets and stops between;
// nothing of the window, of the front-end's memory table or of ours stays.
func TestBlobCycles(t *testing.T) {
	m := modeB(t)
	rng := rand.New(rand.NewPCG(1, 2))
	live := map[uint32]uint64{} // id to offset
	old := map[uint32]uint64{}  // those of live that were there at the last start
	next := uint32(1)
	const slot = 64 << 10
	for i := range 4000 {
		switch {
		case i%500 == 499:
			// QEMU 11.1 cannot drop what was mapped when the device started.
			for id := range old {
				m.ok((&virtiogpu.ResourceUnref{ResourceID: id}).Append(nil))
			}
			clear(old)
			m.settle()
			if err := m.Reset(); err != nil {
				t.Fatal(err)
			}
			if err := m.Boot(); err != nil {
				t.Fatal(err)
			}
			clear(live)
		case i%300 == 299:
			if err := m.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := m.Cont(); err != nil {
				t.Fatal(err)
			}
			maps.Copy(old, live)
		case len(live) > 100 || rng.IntN(2) == 0 && len(live) > 0:
			for id := range live {
				if rng.IntN(2) == 0 {
					m.ok(unmapBlob(id))
				}
				m.ok((&virtiogpu.ResourceUnref{ResourceID: id}).Append(nil))
				delete(live, id)
				delete(old, id)
				break
			}
		default:
			off, free := uint64(rng.IntN(windowSize/slot))*slot, true
			for _, o := range live {
				free = free && o != off
			}
			m.hostBlob(next, uint64(1+rng.IntN(slot)))
			typ, _ := m.do(mapBlob(next, off))
			if typ.IsOK() != free {
				t.Fatalf("map at %#x answered with %v, free is %v", off, typ, free)
			}
			if free {
				live[next] = off
			} else {
				m.ok((&virtiogpu.ResourceUnref{ResourceID: next}).Append(nil))
			}
			next++
		}
	}
	for id := range live {
		m.ok((&virtiogpu.ResourceUnref{ResourceID: id}).Append(nil))
	}
	m.settle()
	if n := len(m.FE.Mappings()); n != 0 {
		t.Errorf("%d mappings left", n)
	}
	if st := m.dev.Status(true); len(st.Resources) != 0 || st.Window.Used != 0 || st.Window.Placements != 0 {
		t.Errorf("%d resources, window %+v", len(st.Resources), st.Window)
	}
	for _, p := range m.FE.Problems() {
		t.Error(p)
	}
}

// TestMapBudget: the number of mappings stays below what kills QEMU.
func TestMapBudget(t *testing.T) {
	m := modeB(t)
	refused := 0
	for id := uint32(1); id <= 512; id++ {
		m.hostBlob(id, 4096)
		if typ, _ := m.do(mapBlob(id, uint64(id)*4096)); !typ.IsOK() {
			refused++
			if typ != virtiogpu.RespErrOutOfMemory {
				t.Fatalf("map %d: %v", id, typ)
			}
		}
	}
	if n := len(m.FE.Mappings()); n != 400 || refused != 112 {
		t.Errorf("%d mappings, %d refused; want 400 and 112", n, refused)
	}
}

// TestRings: fences of different rings do not wait for each other, those of one
// ring keep their order.
func TestRings(t *testing.T) {
	m := newMachine(t, machineConfig{profile: vhostusertest.QEMU11B, fake: manualFences})
	m.createCtx(1)
	m.createCtx(2)
	ring := func(ctx uint32, idx uint8, id uint64) virtiogpu.CtrlHdr {
		return virtiogpu.CtrlHdr{CtxID: ctx, Flags: virtiogpu.FlagFence | virtiogpu.FlagInfoRingIdx, RingIdx: idx, FenceID: id}
	}
	a, err := m.Ctrl.Submit(submit(ring(1, 0, 1), make([]byte, 8)), 64)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Ctrl.Submit(submit(ring(2, 1, 1), make([]byte, 8)), 64)
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Ctrl.Submit((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo, CtxID: 1, Flags: virtiogpu.FlagFence | virtiogpu.FlagInfoRingIdx, FenceID: 2}).Append(nil), 512)
	if err != nil {
		t.Fatal(err)
	}
	m.settle()
	p := m.fake.Pending()
	if len(p) != 2 {
		t.Fatalf("%d renderer fences", len(p))
	}
	for _, op := range []*fakeguest.Op{a, b, c} {
		if done, _ := m.Ctrl.Done(op); done {
			t.Fatal("completed before its fence")
		}
	}
	m.fake.Signal(1)
	if _, err := m.Ctrl.Wait(a, m.resp, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Ctrl.Wait(c, m.resp, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if done, _ := m.Ctrl.Done(b); done {
		t.Fatal("ring 1 of context 2 completed with ring 0 of context 1")
	}
	m.fake.Signal(1)
	n, err := m.Ctrl.Wait(b, m.resp, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var h virtiogpu.CtrlHdr
	if err := h.Decode(m.resp[:n]); err != nil || h.RingIdx != 1 || h.CtxID != 2 || h.FenceID != 1 || h.Flags&virtiogpu.FlagInfoRingIdx == 0 {
		t.Errorf("response %+v, %v", h, err)
	}
}

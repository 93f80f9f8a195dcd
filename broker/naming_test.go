package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// names is the machine's resources as a client's proxy sees them.
func (m *machine) names() *broker.Names { return &broker.Names{GPU: m.dev} }

// namedCtx makes a context with a debug name.
func (m *machine) namedCtx(id uint32, name string) {
	m.t.Helper()
	c := virtiogpu.CtxCreate{CtrlHdr: ctxHdr(id), NLen: uint32(len(name))}
	copy(c.Name[:], name)
	m.ok(c.Append(nil))
}

func (m *machine) open(owner proxy.Owner, id uint32) proxy.Resource {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 5*time.Second)
	defer cancel()
	r, err := m.names().Open(ctx, owner, proxy.DeviceGPU, id)
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

func closed(t *testing.T, r proxy.Resource) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

const token = "gb-0123456789ab"

// TestNameOwner: a resource can be named through the context that it is attached
// to, by its id or by its name, and by nobody else.
func TestNameOwner(t *testing.T) {
	m := newMachine(t, machineConfig{})
	m.namedCtx(1, token)
	m.namedCtx(2, "someone else")
	m.create3D(7, 64, 32)
	m.attachCtx(1, 7)
	for _, o := range []proxy.Owner{{Ctx: 1}, {Token: token}} {
		r := m.open(o, 7)
		if w, h, f, ok := r.Texture(); w != 64 || h != 32 || f != dmabuf.ARGB8888 || !ok || r.ID() != 7 || r.Size() != 0 {
			t.Errorf("texture %d: %dx%d %v, %v", r.ID(), w, h, f, ok)
		}
		closed(t, r)
	}
	for _, o := range []proxy.Owner{{}, {Ctx: 2}, {Ctx: 9}, {Token: "someone else"}, {Token: token[:14]}, {Token: token + "x"}} {
		if _, err := m.names().Open(t.Context(), o, proxy.DeviceGPU, 7); !errors.Is(err, proxy.ErrNotOwned) {
			t.Errorf("%+v: %v, want ErrNotOwned", o, err)
		}
	}
	if _, err := m.names().Open(t.Context(), proxy.Owner{Token: token}, proxy.DeviceImport, 7); !errors.Is(err, proxy.ErrUnknownResource) {
		t.Errorf("a device that is not there: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := m.names().Open(ctx, proxy.Owner{Token: token}, proxy.DeviceGPU, 8); !errors.Is(err, proxy.ErrUnknownResource) {
		t.Errorf("a resource that never comes: %v", err)
	}
}

// TestNameBeforeItExists: a naming waits for its resource, hears of a reset, and
// the number of those that wait is limited.
func TestNameBeforeItExists(t *testing.T) {
	m := newMachine(t, machineConfig{})
	m.namedCtx(1, token)
	answer := make(chan error)
	go func() {
		r, err := m.names().Open(context.Background(), proxy.Owner{Token: token}, proxy.DeviceGPU, 3)
		if err == nil {
			err = r.Close()
		}
		answer <- err
	}()
	m.settle()
	select {
	case err := <-answer:
		t.Fatalf("answered before the resource exists: %v", err)
	default:
	}
	// Created and attached in one go: its owner is known when the naming is tried.
	for _, cmd := range [][]byte{create3D(3, 16, 16), typed(&virtiogpu.CtxResource{CtrlHdr: ctxHdr(1), ResourceID: 3}, virtiogpu.CmdCtxAttachResource)} {
		if _, err := m.Ctrl.Submit(cmd, 64); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	m.settle()
	const limit, over = 256, 5
	answers := make(chan error, limit+over)
	for range limit + over {
		go func() {
			_, err := m.names().Open(context.Background(), proxy.Owner{Token: token}, proxy.DeviceGPU, 99)
			answers <- err
		}()
	}
	for range over {
		if err := <-answers; !errors.Is(err, proxy.ErrUnknownResource) {
			t.Errorf("over the limit: %v", err)
		}
	}
	if err := m.Reset(); err != nil {
		t.Fatal(err)
	}
	for range limit {
		if err := <-answers; !errors.Is(err, proxy.ErrGone) {
			t.Errorf("at a reset: %v", err)
		}
	}
}

// TestNameExport: the dma-buf of a texture is exported once for windows and screens
// together, and outlives the guest's interest.
func TestNameExport(t *testing.T) {
	m := newMachine(t, machineConfig{fake: virgltest.Config{Kind: dmabuf.KindDMABuf}})
	m.namedCtx(1, token)
	for id := uint32(1); id <= 2; id++ {
		m.create3D(id, 64, 64)
		m.attachCtx(1, id)
	}
	m.scanout(0, 1, rect(0, 0, 64, 64))
	m.flush(1, rect(0, 0, 64, 64))
	shown, hidden := m.open(proxy.Owner{Token: token}, 1), m.open(proxy.Owner{Token: token}, 2)
	var bufs []*dmabuf.Buffer
	take := func(r proxy.Resource) *dmabuf.Buffer {
		t.Helper()
		b, err := r.Buffer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		bufs = append(bufs, b)
		return b
	}
	if first, again := take(shown), take(shown); first != again {
		t.Error("exported twice")
	}
	if n := m.fake.Calls(virgltest.OpExport); n != 1 {
		t.Errorf("%d exports, want the one that the screen shows", n)
	}
	if _, _, err := shown.Memory(t.Context()); !errors.Is(err, proxy.ErrNotExportable) {
		t.Errorf("a texture's memory: %v", err)
	}
	for id := uint32(1); id <= 2; id++ {
		m.ok((&virtiogpu.ResourceUnref{ResourceID: id}).Append(nil))
	}
	// The id is the guest's to use again; who has the old one open keeps it.
	m.create3D(1, 8, 8)
	if b := take(shown); b != bufs[0] {
		t.Error("another buffer after the unref")
	}
	if b := take(hidden); b.Width != 64 || !b.Planes[0].FD.Valid() {
		t.Errorf("%v: not exported before it went", b)
	}
	if err := shown.Drawn(t.Context()); err != nil {
		t.Errorf("drawn: %v", err)
	}
	if err := m.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := m.Boot(); err != nil {
		t.Fatal(err)
	}
	if err := shown.Drawn(t.Context()); !errors.Is(err, proxy.ErrGone) {
		t.Errorf("drawn after a reset: %v", err)
	}
	take(shown)
	closed(t, shown)
	closed(t, hidden)
	m.settle()
	for i, b := range bufs {
		if !b.Planes[0].FD.Valid() {
			t.Errorf("buffer %d was closed while it is held", i)
		}
		b.Release()
	}
}

// TestNotExportable says why, when the driver has no dma-bufs; reading works.
func TestNotExportable(t *testing.T) {
	m := newMachine(t, machineConfig{})
	m.namedCtx(1, token)
	m.create3D(1, 32, 16)
	m.attachCtx(1, 1)
	if err := m.fake.Paint(1, func(p []byte) { p[(3*32+5)*4] = 77 }); err != nil {
		t.Fatal(err)
	}
	r := m.open(proxy.Owner{Token: token}, 1)
	if _, err := r.Buffer(t.Context()); !errors.Is(err, proxy.ErrNotExportable) {
		t.Errorf("export: %v", err)
	}
	dst, err := shmfallback.Alloc(32, 16, dmabuf.ARGB8888, "window")
	if err != nil {
		t.Fatal(err)
	}
	n, err := r.Read(t.Context(), proxy.Layout{}, display.Rect{X: 5, Y: 3, W: 2, H: 2}, dst)
	if err != nil || n != 16 {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if got := dst.Mem[3*int(dst.Planes[0].Stride)+5*4]; got != 77 {
		t.Errorf("pixel %d", got)
	}
	if st := m.dev.Status(false); st.BytesCopied != 16 {
		t.Errorf("%d bytes counted", st.BytesCopied)
	}
	m.ok((&virtiogpu.ResourceUnref{ResourceID: 1}).Append(nil))
	if _, err := r.Read(t.Context(), proxy.Layout{}, display.Rect{W: 1, H: 1}, dst); !errors.Is(err, proxy.ErrUnknownResource) {
		t.Errorf("read of what is gone: %v", err)
	}
	dst.Release()
	closed(t, r)
}

// TestDrawn waits for the fence behind what the guest had queued, and for nothing
// that comes later.
func TestDrawn(t *testing.T) {
	m := newMachine(t, machineConfig{fake: manualFences})
	m.namedCtx(1, token)
	m.namedCtx(2, "compositor")
	m.create3D(1, 32, 16)
	m.attachCtx(1, 1)
	m.attachCtx(2, 1)
	r := m.open(proxy.Owner{Token: token}, 1)
	if err := r.Drawn(t.Context()); err != nil {
		t.Fatalf("nothing was drawn: %v", err)
	}
	// The command is in the queue; nobody kicked.
	if _, err := m.Ctrl.Submit(submit(ctxHdr(1), make([]byte, 8)), 64); err != nil {
		t.Fatal(err)
	}
	waits := func() (chan error, context.CancelFunc) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Drawn(ctx) }()
		m.settle()
		select {
		case err := <-done:
			t.Fatalf("drawn before the fence: %v", err)
		default:
		}
		return done, cancel
	}
	done, cancel := waits()
	defer cancel()
	m.fake.Signal(1)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m.ok(submit(ctxHdr(1), make([]byte, 8)))
	done, cancel = waits()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// The context that drew lets go of it; its work is waited for all the same.
	m.ok(typed(&virtiogpu.CtxResource{CtrlHdr: ctxHdr(1), ResourceID: 1}, virtiogpu.CmdCtxDetachResource))
	done, cancel = waits()
	defer cancel()
	m.ok(typed(&virtiogpu.CtrlHdr{CtxID: 1}, virtiogpu.CmdCtxDestroy))
	if err := <-done; err != nil {
		t.Errorf("its context went: %v", err)
	}
	m.ok(submit(ctxHdr(2), make([]byte, 8)))
	done, cancel = waits()
	defer cancel()
	if err := m.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, proxy.ErrGone) {
		t.Errorf("at a reset: %v", err)
	}
	closed(t, r)
}

// TestNameBlob: guest pages are read with the layout that the client says, also
// after the guest gave them up; a host blob's memory is the memfd itself.
func TestNameBlob(t *testing.T) {
	m := modeB(t)
	m.namedCtx(1, token)
	const w, h, stride, offset, size = 20, 10, 128, 4096 + 8, 16384
	b, err := m.Pages.Scattered(size)
	if err != nil {
		t.Fatal(err)
	}
	b.WriteAt([]byte{0x12, 0x34}, offset+3*stride+7*2)
	b.WriteAt([]byte{1, 2, 3, 4}, offset+5*stride+7*4)
	m.ok(createBlob(virtiogpu.CtrlHdr{}, 1, virtiogpu.BlobMemGuest, virtiogpu.BlobFlagMappable, 0, size, b))
	m.attachCtx(1, 1)
	m.hostBlob(2, 8192)
	m.attachCtx(1, 2)
	pages, host := m.open(proxy.Owner{Ctx: 1}, 1), m.open(proxy.Owner{Ctx: 1}, 2)
	if pages.Size() != size {
		t.Errorf("size %d", pages.Size())
	}
	if _, _, _, ok := pages.Texture(); ok {
		t.Error("a blob has a texture")
	}
	if _, err := pages.Buffer(t.Context()); !errors.Is(err, proxy.ErrNotExportable) {
		t.Errorf("picture of a blob: %v", err)
	}
	if fd, isDMABuf, err := pages.Memory(t.Context()); err == nil {
		if !isDMABuf {
			t.Error("guest pages came as something else than a dma-buf")
		}
		_ = fd.Close()
	} else if !errors.Is(err, proxy.ErrNotExportable) {
		t.Error(err)
	}
	m.ok((&virtiogpu.ResourceUnref{ResourceID: 1}).Append(nil))
	m.ok((&virtiogpu.ResourceUnref{ResourceID: 2}).Append(nil))
	for _, c := range []struct {
		as, to dmabuf.Fourcc
		at     int
		want   []byte
	}{
		{dmabuf.RGB565, dmabuf.RGB565, 3*256 + 7*2, []byte{0x12, 0x34}},
		{dmabuf.ARGB8888, dmabuf.ARGB8888, 5*256 + 7*4, []byte{1, 2, 3, 4}},
		{dmabuf.ABGR8888, dmabuf.ARGB8888, 5*256 + 7*4, []byte{3, 2, 1, 4}},
	} {
		dst, err := shmfallback.Alloc(w, h, c.to, "window")
		if err != nil {
			t.Fatal(err)
		}
		as := proxy.Layout{Fourcc: c.as, Offset: offset, Stride: stride}
		n, err := pages.Read(t.Context(), as, display.Rect{W: w, H: h}, dst)
		if err != nil || n != uint64(w*h*c.to.BytesPerPixel()) {
			t.Errorf("%v: %d bytes, %v", c.as, n, err)
		}
		if got := dst.Mem[c.at : c.at+len(c.want)]; !bytes.Equal(got, c.want) {
			t.Errorf("%v as %v: %x, want %x", c.as, c.to, got, c.want)
		}
		as.Stride = size / h
		if n, err := pages.Read(t.Context(), as, display.Rect{W: w, H: h}, dst); err == nil {
			t.Errorf("%d bytes read past the end", n)
		}
		dst.Release()
	}
	fd, isDMABuf, err := host.Memory(t.Context())
	if err != nil || isDMABuf {
		t.Fatalf("host memory: dma-buf %v, %v", isDMABuf, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd.Int(), &st); err != nil || st.Size != 8192 {
		t.Errorf("%d bytes, %v", st.Size, err)
	}
	_ = fd.Close()
	closed(t, pages)
	closed(t, host)
}

// TestNamesAtOnce opens, uses and closes from many goroutines while the guest goes
// on, and closes some after the device is gone (newMachine checks descriptors).
func TestNamesAtOnce(t *testing.T) {
	m := newMachine(t, machineConfig{fake: virgltest.Config{Kind: dmabuf.KindDMABuf}})
	m.namedCtx(1, token)
	var wg sync.WaitGroup
	fail := make(chan error, 64)
	for g := range 8 {
		wg.Go(func() {
			for i := range 50 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
				r, err := m.names().Open(ctx, proxy.Owner{Token: token}, proxy.DeviceGPU, uint32(1+i%3))
				cancel()
				if err != nil {
					continue
				}
				if b, err := r.Buffer(context.Background()); err == nil {
					b.Release()
				} else if !errors.Is(err, proxy.ErrNotExportable) {
					fail <- fmt.Errorf("goroutine %d: %w", g, err)
				}
				_ = r.Drawn(context.Background())
				_ = r.Close()
			}
		})
	}
	for i := range 200 {
		id := uint32(1 + i%3)
		m.create3D(id, 16, 16)
		m.attachCtx(1, id)
		m.ok(submit(fenced(1, uint64(i)), make([]byte, 8)))
		m.ok((&virtiogpu.ResourceUnref{ResourceID: id}).Append(nil))
	}
	wg.Wait()
	close(fail)
	for err := range fail {
		t.Error(err)
	}
	m.create3D(1, 16, 16)
	m.attachCtx(1, 1)
	r := m.open(proxy.Owner{Token: token}, 1)
	t.Cleanup(func() { closed(t, r) }) // runs before the machine's
}

// TestNameFormats lists what the fake's capability set says (every byte 0x22: bits 1
// and 5), and nothing without 3D.
func TestNameFormats(t *testing.T) {
	m := newMachine(t, machineConfig{})
	var got []dmabuf.Fourcc
	for _, f := range m.names().Formats() {
		if f.Modifier == dmabuf.ModLinear {
			got = append(got, f.Fourcc)
		}
	}
	if len(got) == 0 {
		t.Error("no formats")
	}
	for _, f := range got {
		if v, _ := virtiogpu.FormatOf(f); v%8 != 1 && v%8 != 5 {
			t.Errorf("format %v (%d) is not among them", f, v)
		}
	}
	none := newMachine(t, machineConfig{fake: virgltest.Config{NoGL: true}, profile: vhostusertest.QEMU11B})
	if f := none.names().Formats(); len(f) != 0 {
		t.Errorf("%v without 3D", f)
	}
}

// TestNameLimits: memory that the guest gave up counts as long as somebody has it
// open, and stays whole under the next owner of its number.
func TestNameLimits(t *testing.T) {
	m := newMachine(t, machineConfig{profile: vhostusertest.QEMU11B, limits: broker.Limits{Bytes: 64 << 10, Resources: 4}})
	m.namedCtx(1, token)
	var held []proxy.Resource
	for range 3 {
		m.hostBlob(1, 16<<10)
		m.attachCtx(1, 1)
		held = append(held, m.open(proxy.Owner{Token: token}, 1))
		m.ok((&virtiogpu.ResourceUnref{ResourceID: 1}).Append(nil))
	}
	big := createBlob(virtiogpu.CtrlHdr{}, 1, virtiogpu.BlobMemHost3D, virtiogpu.BlobFlagMappable, 0, 32<<10, nil)
	if typ, _ := m.do(big); typ != virtiogpu.RespErrOutOfMemory {
		t.Errorf("%v", typ)
	}
	for _, r := range held {
		closed(t, r)
	}
	m.settle()
	m.ok(big)
}

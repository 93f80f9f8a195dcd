package relay_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/shm"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// paint fills a rectangle of a 32-bit picture in a file with a value for each pixel.
func paint(t testing.TB, fd *dmabuf.FD, offset, stride, x, y, w, h int, value uint32) {
	t.Helper()
	row := bytes.Repeat(binary.LittleEndian.AppendUint32(nil, value), w)
	for i := range h {
		if _, err := unix.Pwrite(fd.Int(), row, int64(offset+(y+i)*stride+x*4)); err != nil {
			t.Fatal(err)
		}
	}
}

// picture is what the host knows of a buffer.
type picture struct {
	w, h int
	pix  []uint32
}

func newPicture(w, h int) *picture { return &picture{w, h, make([]uint32, w*h)} }

func (p *picture) apply(t testing.TB, u link.Update) {
	t.Helper()
	if u.BytesPerPixel != 4 || int(u.X+u.W) > p.w || int(u.Y+u.H) > p.h {
		t.Fatalf("update %d,%d %dx%d with %d bytes per pixel for a picture of %dx%d", u.X, u.Y, u.W, u.H, u.BytesPerPixel, p.w, p.h)
	}
	for y := range int(u.H) {
		for x := range int(u.W) {
			p.pix[(int(u.Y)+y)*p.w+int(u.X)+x] = binary.LittleEndian.Uint32(u.Pixels[(y*int(u.W)+x)*4:])
		}
	}
}

// commit expects updates and then the messages of a commit; it returns the bytes.
func (p *picture) commit(r *rig, object wire.ID) (copied int) {
	r.t.Helper()
	for {
		switch f := r.next().(type) {
		case link.Update:
			p.apply(r.t, f)
			copied += int(f.Raw)
		case message:
			if f.object == object && f.opcode == proto.OpWlSurfaceCommit {
				return copied
			}
			if f.object != object {
				r.t.Fatalf("the host got request %d of object %d, want a commit of %d", f.opcode, f.object, object)
			}
		}
	}
}

// dup gives the client's descriptor away and keeps one.
func dup(t testing.TB, fd *dmabuf.FD) *dmabuf.FD {
	t.Helper()
	d, err := fd.Dup()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// shmBuffer makes a pool and a buffer in it.
func (r *rig) shmBuffer(fd *dmabuf.FD, poolSize, offset, w, h, stride int32) {
	r.t.Helper()
	r.send(func(wr *wire.Writer) {
		proto.WlShm(idShm).CreatePool(wr, idPool, dup(r.t, fd), poolSize)
		proto.WlShmPool(idPool).CreateBuffer(wr, idBuffer, offset, w, h, stride, proto.WlShmFormatXrgb8888)
	})
	r.items = nil
	r.want(idShm, proto.OpWlShmCreatePool)
	r.want(idPool, proto.OpWlShmPoolCreateBuffer)
	if len(r.items) != 1 { // the pool has none
		r.t.Fatalf("items %+v, want one", r.items)
	}
}

func TestStreamTier(t *testing.T) {
	const w, h, stride, offset = 300, 200, 300*4 + 52, 1003
	r := newRig(t, nil)
	r.setup()
	fd := memfd(t, offset+stride*h)
	defer func() { _ = fd.Close() }()
	paint(t, fd, offset, stride, 0, 0, w, h, 0x112233)
	r.shmBuffer(fd, offset+stride*h, offset, w, h, stride)
	p := newPicture(w, h)
	s := proto.WlSurface(idSurface)

	r.send(func(wr *wire.Writer) { s.Attach(wr, idBuffer, 0, 0); s.Damage(wr, 0, 0, 10, 10); s.Commit(wr) })
	if n := p.commit(r, idSurface); n != w*h*4 {
		t.Errorf("the first commit copies %d bytes, want all %d", n, w*h*4)
	}
	for i, v := range p.pix {
		if v != 0x112233 {
			t.Fatalf("pixel %d is %#x", i, v)
		}
	}

	// Only what is damaged is copied.
	paint(t, fd, offset, stride, 0, 0, w, h, 0x445566)
	r.send(func(wr *wire.Writer) {
		s.Attach(wr, idBuffer, 0, 0)
		s.Damage(wr, 10, 20, 5, 7)
		s.DamageBuffer(wr, 290, 190, 2147483647, 2147483647)
		s.Commit(wr)
	})
	if n := p.commit(r, idSurface); n != (5*7+10*10)*4 {
		t.Errorf("copies %d bytes, want %d", n, (5*7+10*10)*4)
	}
	for y := range h {
		for x := range w {
			want := uint32(0x112233)
			if x >= 10 && x < 15 && y >= 20 && y < 27 || x >= 290 && y >= 190 {
				want = 0x445566
			}
			if got := p.pix[y*w+x]; got != want {
				t.Fatalf("pixel %d,%d is %#x, want %#x", x, y, got, want)
			}
		}
	}

	// With a scale damage of the surface is in larger steps.
	r.send(func(wr *wire.Writer) { s.SetBufferScale(wr, 2); s.Attach(wr, idBuffer, 0, 0); s.Commit(wr) })
	if n := p.commit(r, idSurface); n != w*h*4 {
		t.Errorf("a new scale copies %d bytes, want all", n)
	}
	r.send(func(wr *wire.Writer) { s.Attach(wr, idBuffer, 0, 0); s.Damage(wr, 1, 1, 3, 3); s.Commit(wr) })
	if n := p.commit(r, idSurface); n != 6*6*4 {
		t.Errorf("copies %d bytes, want %d", n, 6*6*4)
	}
	// In doubt everything.
	r.send(func(wr *wire.Writer) { s.SetBufferTransform(wr, 1); s.Attach(wr, idBuffer, 0, 0); s.Commit(wr) })
	p.commit(r, idSurface)
	r.send(func(wr *wire.Writer) { s.Attach(wr, idBuffer, 0, 0); s.Damage(wr, 1, 1, 3, 3); s.Commit(wr) })
	if n := p.commit(r, idSurface); n != w*h*4 {
		t.Errorf("a turned buffer copies %d bytes, want all", n)
	}
	if got := r.stats.Bytes[shm.TierStream].Load(); got != uint64(4*w*h*4+(5*7+10*10+6*6)*4) {
		t.Errorf("counted %d bytes", got)
	}
	if got := r.stats.Frames[shm.TierStream].Load(); got != 6 {
		t.Errorf("counted %d frames", got)
	}
}

// TestDamageOverBuffers checks that a buffer gets what changed while others were shown.
func TestDamageOverBuffers(t *testing.T) {
	const w, h, size = 100, 50, 100 * 50 * 4
	const ids, count = 100, 3
	r := newRig(t, nil)
	r.setup()
	fd := memfd(t, count*size)
	defer func() { _ = fd.Close() }()
	r.send(func(wr *wire.Writer) {
		proto.WlShm(idShm).CreatePool(wr, idPool, dup(t, fd), count*size)
		for i := range count {
			proto.WlShmPool(idPool).CreateBuffer(wr, proto.WlBuffer(ids+i), int32(i*size), w, h, w*4, proto.WlShmFormatArgb8888)
		}
	})
	r.want(idShm, proto.OpWlShmCreatePool)
	var seen [count]*picture
	for i := range count {
		r.want(idPool, proto.OpWlShmPoolCreateBuffer)
		seen[i] = newPicture(w, h)
	}
	s := proto.WlSurface(idSurface)
	truth := newPicture(w, h)
	total := 0
	for n := range 40 {
		// Frame n changes one place, and the client draws the whole frame.
		x, y := n*7%90, n*5%40
		for dy := range 10 {
			for dx := range 10 {
				truth.pix[(y+dy)*w+x+dx] = uint32(n + 1)
			}
		}
		i := n % count
		if n%11 == 0 {
			i = 0 // not always in turn
		}
		raw := make([]byte, 0, size)
		for _, v := range truth.pix {
			raw = binary.LittleEndian.AppendUint32(raw, v)
		}
		if _, err := unix.Pwrite(fd.Int(), raw, int64(i*size)); err != nil {
			t.Fatal(err)
		}
		r.send(func(wr *wire.Writer) {
			s.Attach(wr, proto.WlBuffer(ids+i), 0, 0)
			s.DamageBuffer(wr, int32(x), int32(y), 10, 10)
			s.Commit(wr)
		})
		total += seen[i].commit(r, idSurface)
		if got := seen[i].pix; !equal(got, truth.pix) {
			t.Fatalf("frame %d: the host's copy of buffer %d is out of date", n, i)
		}
	}
	if total > count*size+40*count*2*10*10*4 {
		t.Errorf("%d bytes copied for %d small changes", total, 40)
	}
}

func equal(a, b []uint32) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestPoolIsCut(t *testing.T) {
	const size = 64 * 64 * 4
	r := newRig(t, nil)
	r.setup()
	fd := memfd(t, size)
	defer func() { _ = fd.Close() }()
	r.shmBuffer(fd, size, 0, 64, 64, 256)
	if err := unix.Ftruncate(fd.Int(), size/2); err != nil {
		t.Fatal(err)
	}
	s := proto.WlSurface(idSurface)
	r.send(func(wr *wire.Writer) { s.Attach(wr, idBuffer, 0, 0); s.Commit(wr) })
	r.wantError(idShm, uint32(proto.WlShmErrorInvalidFd))
}

// TestHugePool has a pool like foot's: 512 MiB, hardly any of it used, with holes.
func TestHugePool(t *testing.T) {
	const pool, at, w, h = 512 << 20, 128 << 20, 640, 480
	r := newRig(t, nil)
	r.setup()
	fd := memfd(t, pool)
	defer func() { _ = fd.Close() }()
	r.shmBuffer(fd, pool, at, w, h, w*4)
	paint(t, fd, at, w*4, 0, 0, w, h, 7)
	if err := unix.Fallocate(fd.Int(), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, w*4*10); err != nil {
		t.Skipf("no holes here: %v", err)
	}
	s := proto.WlSurface(idSurface)
	r.send(func(wr *wire.Writer) { s.Attach(wr, idBuffer, 0, 0); s.Commit(wr) })
	p := newPicture(w, h)
	p.commit(r, idSurface)
	if p.pix[9*w] != 0 || p.pix[10*w] != 7 {
		t.Errorf("pixels around the hole are %#x and %#x, want 0 and 7", p.pix[9*w], p.pix[10*w])
	}
}

// TestResizeStorm grows a pool under its buffers, as wayland-cursor does.
func TestResizeStorm(t *testing.T) {
	r := newRig(t, nil)
	r.setup()
	fd := memfd(t, 2304)
	defer func() { _ = fd.Close() }()
	r.shmBuffer(fd, 2304, 0, 24, 24, 96)
	for i := range 200 {
		size := 2304 * (i + 2)
		if err := unix.Ftruncate(fd.Int(), int64(size)); err != nil {
			t.Fatal(err)
		}
		id := proto.WlBuffer(100 + i)
		r.send(func(wr *wire.Writer) {
			proto.WlShmPool(idPool).Resize(wr, int32(size))
			proto.WlShmPool(idPool).CreateBuffer(wr, id, int32(size-2304), 24, 24, 96, proto.WlShmFormatArgb8888)
			id.Destroy(wr)
		})
		r.want(idPool, proto.OpWlShmPoolResize)
		r.want(idPool, proto.OpWlShmPoolCreateBuffer)
		r.want(wire.ID(id), proto.OpWlBufferDestroy)
	}
	r.nothing()
}

func TestBadShm(t *testing.T) {
	huge := proto.WlShmFormatXrgb8888
	for _, c := range []struct {
		name   string
		object wire.ID
		code   proto.WlShmError
		do     func(r *rig, w *wire.Writer, fd func() *dmabuf.FD)
	}{
		{"no size", idShm, proto.WlShmErrorInvalidStride, func(r *rig, w *wire.Writer, fd func() *dmabuf.FD) {
			proto.WlShm(idShm).CreatePool(w, idPool, fd(), 0)
		}},
		{"negative size", idShm, proto.WlShmErrorInvalidStride, func(r *rig, w *wire.Writer, fd func() *dmabuf.FD) {
			proto.WlShm(idShm).CreatePool(w, idPool, fd(), -1)
		}},
		{"not memory", idShm, proto.WlShmErrorInvalidFd, func(r *rig, w *wire.Writer, fd func() *dmabuf.FD) {
			x, y := pair(r.t)
			_ = y.Close()
			proto.WlShm(idShm).CreatePool(w, idPool, x, 4096)
		}},
		{"shrinks", idPool, proto.WlShmErrorInvalidFd, func(r *rig, w *wire.Writer, fd func() *dmabuf.FD) {
			proto.WlShm(idShm).CreatePool(w, idPool, fd(), 4096)
			proto.WlShmPool(idPool).Resize(w, 4095)
		}},
		{"outside", idPool, proto.WlShmErrorInvalidStride, func(r *rig, w *wire.Writer, fd func() *dmabuf.FD) {
			proto.WlShm(idShm).CreatePool(w, idPool, fd(), 4096)
			proto.WlShmPool(idPool).CreateBuffer(w, idBuffer, 4, 32, 32, 128, huge)
		}},
		{"overflow", idPool, proto.WlShmErrorInvalidStride, func(r *rig, w *wire.Writer, fd func() *dmabuf.FD) {
			proto.WlShm(idShm).CreatePool(w, idPool, fd(), 4096)
			proto.WlShmPool(idPool).CreateBuffer(w, idBuffer, 0, 1, 1<<30, 1<<30, huge)
		}},
		{"stride", idPool, proto.WlShmErrorInvalidStride, func(r *rig, w *wire.Writer, fd func() *dmabuf.FD) {
			proto.WlShm(idShm).CreatePool(w, idPool, fd(), 4096)
			proto.WlShmPool(idPool).CreateBuffer(w, idBuffer, 0, 32, 1, 127, huge)
		}},
		{"negative", idPool, proto.WlShmErrorInvalidStride, func(r *rig, w *wire.Writer, fd func() *dmabuf.FD) {
			proto.WlShm(idShm).CreatePool(w, idPool, fd(), 4096)
			proto.WlShmPool(idPool).CreateBuffer(w, idBuffer, -4, 1, 1, 4, huge)
		}},
		{"format", idPool, proto.WlShmErrorInvalidFormat, func(r *rig, w *wire.Writer, fd func() *dmabuf.FD) {
			proto.WlShm(idShm).CreatePool(w, idPool, fd(), 4096)
			proto.WlShmPool(idPool).CreateBuffer(w, idBuffer, 0, 1, 1, 4, 0x12345678)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.setup()
			r.send(func(w *wire.Writer) { c.do(r, w, func() *dmabuf.FD { return memfd(t, 4096) }) })
			t.Log(r.wantError(c.object, uint32(c.code)))
		})
	}
}

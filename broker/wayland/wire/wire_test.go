package wire_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// pair returns the two ends of a connection.
func pair(t testing.TB, maxMessage int) (a, b *wire.Conn) {
	t.Helper()
	raw, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*wire.Conn
	for i := range ends {
		if ends[i], err = wire.NewConn(dmabuf.NewFD(raw[i], "end"), maxMessage); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ends[i].Close() })
	}
	return ends[0], ends[1]
}

func memfd(t testing.TB) *dmabuf.FD {
	t.Helper()
	raw, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return dmabuf.NewFD(raw, "test memfd")
}

// next sends what a has and returns b's next message.
func next(t testing.TB, a, b *wire.Conn) wire.Message {
	t.Helper()
	for range 100 {
		if err := a.Flush(); err != nil {
			t.Fatal(err)
		}
		m, ok, err := b.Next()
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return m
		}
		if _, err := b.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("no message arrived")
	return wire.Message{}
}

func TestArguments(t *testing.T) {
	a, b := pair(t, 0)
	array := []byte{1, 2, 3, 4, 5}
	a.Out.Begin(7, 3)
	a.Out.Int(-5)
	a.Out.Uint(0xfffffffe)
	a.Out.Fixed(wire.FixedFloat(-1.5))
	a.Out.String("")
	a.Out.String("abc")
	a.Out.String("abcd")
	a.Out.NullString()
	a.Out.OptString("")
	a.Out.Object(9)
	a.Out.Object(0)
	a.Out.Array(array)
	a.Out.Array(nil)
	fd := memfd(t)
	want := inode(t, fd)
	a.Out.FD(fd)
	a.Out.End()
	if err := a.Out.Err(); err != nil {
		t.Fatal(err)
	}
	m := next(t, a, b)
	if m.Object != 7 || m.Opcode != 3 || len(m.Body)%4 != 0 {
		t.Fatalf("object %d, opcode %d, %d bytes", m.Object, m.Opcode, len(m.Body))
	}
	d := m.Decoder()
	got := []any{d.Int(), d.Uint(), d.Fixed().Float(), d.String(), d.String(), d.String(), d.OptString(), d.StringBytes() == nil, d.Object(), d.OptObject(), d.Array(), d.Array()}
	text := fmt.Sprint(got...)
	if want := fmt.Sprint(int32(-5), uint32(0xfffffffe), -1.5, "", "abc", "abcd", "", true, wire.ID(9), wire.ID(0), array, []byte{}); text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	in := d.FD()
	defer in.Close()
	if err := d.Done("test"); err != nil {
		t.Error(err)
	}
	if got := inode(t, in); got != want {
		t.Errorf("the descriptor is another file")
	}
	if flags, err := unix.FcntlInt(uintptr(in.Int()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x (%v), want close-on-exec", flags, err)
	}
}

func inode(t testing.TB, fd *dmabuf.FD) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd.Int(), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestFixed(t *testing.T) {
	for _, c := range []struct {
		f    float64
		want wire.Fixed
	}{{0, 0}, {1, 256}, {-1, -256}, {1.0 / 256, 1}, {1e12, 0x7fffffff}, {-1e12, -0x80000000}} {
		if got := wire.FixedFloat(c.f); got != c.want {
			t.Errorf("FixedFloat(%g) = %d, want %d", c.f, got, c.want)
		}
	}
	if wire.FixedInt(-3).Float() != -3 {
		t.Error("FixedInt(-3)")
	}
}

// frame builds a message by hand.
func frame(object uint32, size, opcode uint16, words ...uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, object)
	b = binary.LittleEndian.AppendUint32(b, uint32(size)<<16|uint32(opcode))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func TestFrameLimits(t *testing.T) {
	for _, c := range []struct {
		name string
		raw  []byte
		n    int // bytes of the message, 0 if incomplete
		bad  string
	}{
		{"nothing", nil, 0, ""},
		{"half a header", frame(1, 8, 0)[:7], 0, ""},
		{"no arguments", frame(1, 8, 0), 8, ""},
		{"incomplete", frame(1, 16, 0, 1), 0, ""},
		{"two messages", append(frame(1, 12, 0, 1), frame(1, 8, 0)...), 12, ""},
		{"size 0", frame(1, 0, 0), 0, "size 0"},
		{"size 7", frame(1, 7, 0), 0, "size 7"},
		{"size 9", frame(1, 9, 0), 0, "size 9"},
		{"largest", make([]byte, 0), 0, ""},
		{"too large", frame(1, wire.MaxMessage+4, 0), 0, "size 4100"},
		{"object 0", frame(0, 8, 0), 0, "object 0"},
	} {
		_, n, err := wire.Frame(c.raw, wire.MaxMessage)
		if n != c.n || (c.bad == "") != (err == nil) {
			t.Errorf("%s: %d bytes, %v", c.name, n, err)
		}
		if c.bad != "" && (!errors.Is(err, wire.ErrMalformed) || !strings.Contains(err.Error(), c.bad)) {
			t.Errorf("%s: error %v does not say %q", c.name, err, c.bad)
		}
	}
}

func TestDecoderLimits(t *testing.T) {
	read := map[string]func(d *wire.Decoder){
		"uint":   func(d *wire.Decoder) { d.Uint() },
		"object": func(d *wire.Decoder) { d.Object() },
		"string": func(d *wire.Decoder) { _ = d.String() },
		"opt":    func(d *wire.Decoder) { _ = d.OptString() },
		"array":  func(d *wire.Decoder) { d.Array() },
		"fd":     func(d *wire.Decoder) { d.FD() },
		"none":   func(*wire.Decoder) {},
	}
	for _, c := range []struct {
		kind string
		body []uint32
		want error
	}{
		{"uint", nil, wire.ErrMalformed},
		{"uint", []uint32{1, 2}, wire.ErrMalformed},
		{"object", []uint32{0}, wire.ErrMalformed},
		{"string", []uint32{0}, wire.ErrMalformed},
		{"opt", []uint32{0}, nil},
		{"string", []uint32{1, 0}, nil},
		{"string", []uint32{1, 1}, wire.ErrMalformed},
		{"string", []uint32{4, 0x00414141}, nil},
		{"string", []uint32{4, 0x41414141}, wire.ErrMalformed},
		{"string", []uint32{4, 0x00410041}, wire.ErrMalformed}, // NUL inside
		{"string", []uint32{5, 0x41414141}, wire.ErrMalformed},
		{"string", []uint32{0xffffffff, 0}, wire.ErrMalformed},
		{"opt", []uint32{0xfffffffd, 0}, wire.ErrMalformed},
		{"array", []uint32{0}, nil},
		{"array", []uint32{3, 0}, nil},
		{"array", []uint32{5, 0}, wire.ErrMalformed},
		{"array", []uint32{0xfffffffe}, wire.ErrMalformed},
		{"fd", nil, wire.ErrDescriptors},
		{"none", []uint32{0}, wire.ErrMalformed},
	} {
		m := wire.Message{Object: 1, FDs: &wire.FDQueue{}}
		for _, w := range c.body {
			m.Body = binary.LittleEndian.AppendUint32(m.Body, w)
		}
		d := m.Decoder()
		read[c.kind](&d)
		err := d.Done("test.message")
		if (c.want == nil && err != nil) || (c.want != nil && !errors.Is(err, c.want)) {
			t.Errorf("%s of %#x: error %v, want %v", c.kind, c.body, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "test.message") {
			t.Errorf("error does not name the message: %v", err)
		}
	}
}

func TestWriterLimits(t *testing.T) {
	var w wire.Writer
	w.Begin(1, 0)
	w.Array(make([]byte, 0xfff0))
	w.FD(memfd(t))
	w.End()
	if !errors.Is(w.Err(), nil) || w.Pending() != 8+4+0xfff0 {
		t.Errorf("largest message: %v, %d bytes", w.Err(), w.Pending())
	}
	w.Begin(1, 0)
	w.FD(memfd(t))
	w.Array(make([]byte, 0xfff8))
	w.End()
	if !errors.Is(w.Err(), wire.ErrTooBig) || w.Pending() != 8+4+0xfff0 {
		t.Errorf("message too large: %v, %d bytes", w.Err(), w.Pending())
	}
	a, _ := pair(t, 0)
	a.Out = w // Close frees the first descriptor

	small := wire.Writer{MaxPending: 100}
	for range 20 {
		small.Begin(1, 0)
		small.End()
	}
	if !errors.Is(small.Err(), wire.ErrBacklog) || small.Pending() > 100 {
		t.Errorf("backlog: %v, %d bytes", small.Err(), small.Pending())
	}
}

// TestManyDescriptors sends more than one sendmsg takes; each arrives no later
// than its message.
func TestManyDescriptors(t *testing.T) {
	a, b := pair(t, 0)
	var want []uint64
	for i := range 100 {
		fd := memfd(t)
		want = append(want, inode(t, fd))
		a.Out.Begin(wire.ID(i+1), 0)
		a.Out.FD(fd)
		a.Out.Uint(uint32(i))
		a.Out.End()
	}
	for i := range want {
		m := next(t, a, b)
		d := m.Decoder()
		fd, n := d.FD(), d.Uint()
		if err := d.Done("test"); err != nil {
			t.Fatal(err)
		}
		if got := inode(t, fd); got != want[i] || n != uint32(i) {
			t.Errorf("message %d brought descriptor %d, want %d", n, got, want[i])
		}
		_ = fd.Close()
	}
}

// TestBackPressure fills the socket: Flush returns, nothing is lost, the order
// stays.
func TestBackPressure(t *testing.T) {
	a, b := pair(t, 0)
	a.Out.MaxPending = 8 << 20
	const messages = 50000
	for i := range messages {
		a.Out.Begin(1, 0)
		a.Out.Uint(uint32(i))
		a.Out.Array(make([]byte, 40))
		a.Out.End()
	}
	if err := a.Flush(); err != nil {
		t.Fatal(err)
	}
	if a.Out.Pending() == 0 {
		t.Fatal("the socket took everything; the test needs more")
	}
	for i := range messages {
		m := next(t, a, b)
		if d := m.Decoder(); d.Uint() != uint32(i) {
			t.Fatalf("message %d is out of order", i)
		}
	}
	if a.Out.Pending() != 0 {
		t.Errorf("%d bytes left", a.Out.Pending())
	}
}

func TestPeerGone(t *testing.T) {
	a, b := pair(t, 0)
	a.Out.Begin(1, 0)
	a.Out.FD(memfd(t))
	a.Out.End()
	_ = b.Close()
	if err := a.Flush(); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("send: %v", err)
	}
	if _, err := a.Receive(); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("receive: %v", err)
	}
}

// TestTooManyDescriptors: a peer that sends descriptors without messages that
// claim them, or more than fit, is refused; none stays open.
func TestTooManyDescriptors(t *testing.T) {
	before := fdtest.Count(t)
	t.Run("unclaimed", func(t *testing.T) {
		a, b := pair(t, 0)
		fds := make([]int, 20)
		for i := range fds {
			fds[i] = a.FD()
		}
		var err error
		for i := 0; i < 20 && err == nil; i++ {
			if err := unix.Sendmsg(a.FD(), frame(1, 8, 0), unix.UnixRights(fds...), nil, 0); err != nil {
				t.Fatal(err)
			}
			_, err = b.Receive()
		}
		if !errors.Is(err, wire.ErrDescriptors) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("cut off", func(t *testing.T) {
		a, b := pair(t, 0)
		fds := make([]int, 100)
		for i := range fds {
			fds[i] = a.FD()
		}
		if err := unix.Sendmsg(a.FD(), frame(1, 8, 0), unix.UnixRights(fds...), nil, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Receive(); !errors.Is(err, wire.ErrDescriptors) || !strings.Contains(err.Error(), "MSG_CTRUNC") {
			t.Errorf("error %v", err)
		}
	})
	if after := fdtest.Count(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestSkip(t *testing.T) {
	var q wire.FDQueue
	q.Push(memfd(t))
	q.Push(memfd(t))
	if err := q.Skip(1); err != nil || q.Len() != 1 {
		t.Errorf("skip 1 of 2: %v, %d left", err, q.Len())
	}
	if err := q.Skip(2); !errors.Is(err, wire.ErrDescriptors) {
		t.Errorf("skip 2 of 1: %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	if _, err := wire.Dial(t.TempDir() + "/none"); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "/none") {
		t.Errorf("error %v", err)
	}
}

// TestHotMessagesAllocateNothing covers what a frame costs on either side.
func TestHotMessagesAllocateNothing(t *testing.T) {
	a, b := pair(t, 0)
	surface, buffer := proto.WlSurface(3), proto.WlBuffer(4)
	var attach proto.WlSurfaceAttachRequest
	var damage proto.WlSurfaceDamageBufferRequest
	var callback proto.WlSurfaceFrameRequest
	cycle := func() {
		surface.Attach(&a.Out, buffer, 0, 0)
		surface.DamageBuffer(&a.Out, 1, 2, 3, 4)
		surface.Frame(&a.Out, 5)
		surface.Commit(&a.Out)
		buffer.SendRelease(&a.Out)
		if err := a.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Receive(); err != nil {
			t.Fatal(err)
		}
		for n := 0; ; n++ {
			m, ok, err := b.Next()
			if err != nil || (!ok && n != 5) {
				t.Fatal(n, err)
			}
			if !ok {
				return
			}
			switch {
			case m.Object == 3 && m.Opcode == proto.OpWlSurfaceAttach:
				err = attach.Decode(m)
			case m.Object == 3 && m.Opcode == proto.OpWlSurfaceDamageBuffer:
				err = damage.Decode(m)
			case m.Object == 3 && m.Opcode == proto.OpWlSurfaceFrame:
				err = callback.Decode(m)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	cycle()
	if attach.Buffer != 4 || damage != (proto.WlSurfaceDamageBufferRequest{X: 1, Y: 2, Width: 3, Height: 4}) || callback.Callback != 5 {
		t.Fatalf("decoded %+v %+v %+v", attach, damage, callback)
	}
	if n := testing.AllocsPerRun(200, cycle); n != 0 {
		t.Errorf("%v allocations per frame, want 0", n)
	}
}

func BenchmarkFrame(b *testing.B) {
	var w wire.Writer
	var damage proto.WlSurfaceDamageBufferRequest
	surface := proto.WlSurface(3)
	body := append(frame(3, 24, proto.OpWlSurfaceDamageBuffer), make([]byte, 16)...)
	w.MaxPending = 1 << 30
	b.ReportAllocs()
	for b.Loop() {
		surface.Attach(&w, 4, 0, 0)
		surface.DamageBuffer(&w, 1, 2, 3, 4)
		surface.Frame(&w, 5)
		surface.Commit(&w)
		m, _, err := wire.Frame(body, wire.MaxMessage)
		if err == nil {
			err = damage.Decode(m)
		}
		if err != nil {
			b.Fatal(err)
		}
		if w.Pending() > 1<<20 {
			w = wire.Writer{MaxPending: 1 << 30}
		}
	}
}

package input

import (
	"bytes"
	"context"
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// server is a running Server with both devices.
type server struct {
	*Server
	dir  string
	end  context.CancelFunc
	done chan error
}

func serve(t testing.TB) *server {
	t.Helper()
	dir := t.TempDir()
	in, err := NewServer(Config{Socket: filepath.Join(dir, "in"), TouchSocket: filepath.Join(dir, "touch")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{Server: in, dir: dir, end: cancel, done: make(chan error, 1)}
	go func() { s.done <- in.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-s.done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := in.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// driver is a guest with virtio_input loaded: its event queue always has buffers,
// unless told otherwise.
type driver struct {
	t testing.TB
	*fakeguest.Guest
	src *source
	ops []*fakeguest.Op // posted event buffers, oldest first
}

func profile(p vhostusertest.Profile) vhostusertest.Profile {
	p.QueueSizes = [2]int{4, 4} // QEMU's vhost-user-input
	p.DisplaySocket = false
	return p
}

func (s *server) plug(t testing.TB, socket string, cfg fakeguest.Config) *driver {
	t.Helper()
	cfg.Profile = profile(cfg.Profile)
	cfg.RAMSize = 4 << 20
	g, err := fakeguest.Dial(filepath.Join(s.dir, socket), cfg)
	if err != nil {
		t.Fatal(err)
	}
	kind := Main
	if socket == "touch" {
		kind = Touch
	}
	d := &driver{t: t, Guest: g, src: s.devs[kind].src}
	t.Cleanup(func() {
		if p := g.FE.Problems(); len(p) > 0 {
			t.Errorf("QEMU would not like that: %q", p)
		}
		d.Quit()
	})
	d.boot()
	return d
}

func (d *driver) boot() {
	d.t.Helper()
	d.ops = d.ops[:0]
	if err := d.Boot(); err != nil {
		d.t.Fatal(err)
	}
	d.running()
	d.post(d.Ctrl.Size())
}

// running waits until the device has heard of the start: old versions of QEMU do not
// wait for an answer.
func (d *driver) running() {
	d.t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		d.src.mu.Lock()
		live := d.src.live
		d.src.mu.Unlock()
		if live {
			return
		}
		if time.Now().After(end) {
			d.t.Fatal("the event queue does not start")
		}
	}
}

// post gives n buffers to the device.
func (d *driver) post(n int) {
	d.t.Helper()
	for range n {
		op, err := d.Ctrl.Submit(nil, EventSize)
		if err != nil {
			d.t.Fatal(err)
		}
		d.ops = append(d.ops, op)
	}
}

// next reads one event and posts no new buffer.
func (d *driver) next(timeout time.Duration) (Event, bool) {
	d.t.Helper()
	if len(d.ops) == 0 {
		d.t.Fatal("no buffers are posted")
	}
	var wire [EventSize]byte
	n, err := d.Ctrl.Wait(d.ops[0], wire[:], timeout)
	if err != nil {
		return Event{}, false
	}
	d.ops = append(d.ops[:0], d.ops[1:]...)
	e, err := DecodeEvent(wire[:n])
	if err != nil {
		d.t.Fatal(err)
	}
	return e, true
}

// reads compares the next events with want.
func (d *driver) reads(want ...Event) {
	d.t.Helper()
	var got []Event
	for range want {
		e, ok := d.next(5 * time.Second)
		if !ok {
			break
		}
		got = append(got, e)
		d.post(1)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		d.t.Fatalf("events (-want +got):\n%s", diff)
	}
}

// quiet says that no event comes.
func (d *driver) quiet() {
	d.t.Helper()
	if e, ok := d.next(30 * time.Millisecond); ok {
		d.t.Fatalf("event %+v", e)
	}
}

func ev(typ, code uint16, value int32) Event {
	return Event{Type: typ, Code: code, Value: uint32(value)}
}

var syn = ev(EvSyn, SynReport, 0)

func (s *server) press(code uint16, down bool) {
	s.Key(0, code, down)
	s.Frame(0)
}

func eachProfile(t *testing.T, f func(t *testing.T, s *server, p fakeguest.Config)) {
	for _, p := range vhostusertest.Profiles {
		t.Run(p.Name, func(t *testing.T) { f(t, serve(t), fakeguest.Config{Profile: p}) })
	}
	t.Run("no event indices", func(t *testing.T) {
		f(t, serve(t), fakeguest.Config{Profile: vhostusertest.QEMU11B, NoEventIdx: true, NoIndirect: true})
	})
}

func TestEvents(t *testing.T) {
	eachProfile(t, func(t *testing.T, s *server, cfg fakeguest.Config) {
		d := s.plug(t, "in", cfg)
		for i := range 50 { // the rings go round several times
			s.Pointer(0, 1, 2)
			s.Button(0, BtnLeft, true)
			s.Frame(0)
			s.Pointer(0, 3, 2)
			s.Button(0, BtnLeft, false)
			s.Scroll(0, 120, -120)
			s.Frame(0)
			s.Frame(0) // empty: nothing
			first := []Event{ev(EvAbs, AbsX, 1), ev(EvAbs, AbsY, 2), ev(EvKey, BtnLeft, 1), syn}
			if i > 0 {
				first = append(first[:1], first[2:]...) // y did not change
			}
			d.reads(append(first, ev(EvAbs, AbsX, 3), ev(EvKey, BtnLeft, 0),
				ev(EvRel, RelWheelHiRes, -120), ev(EvRel, RelWheel, -1), ev(EvRel, RelHWheelHiRes, -120), ev(EvRel, RelHWheel, -1), syn)...)
		}
		d.quiet()
	})
}

// TestSlowGuest has a guest without buffers: movements become one, keys stay.
func TestSlowGuest(t *testing.T) {
	s := serve(t)
	d := s.plug(t, "in", fakeguest.Config{Profile: vhostusertest.QEMU11B})
	for i := range 1000 {
		s.Pointer(0, uint16(i), uint16(i))
		s.Frame(0)
	}
	s.press(30, true)
	s.press(30, false)
	var keys []Event
	x, y, moves := uint32(0), uint32(0), 0
	for len(keys) < 2 {
		e, ok := d.next(5 * time.Second)
		if !ok {
			t.Fatalf("got %v, then nothing; %+v", keys, s.Counters(Main))
		}
		d.post(1)
		switch {
		case e.Type == EvKey:
			keys = append(keys, e)
		case e.Type == EvAbs && e.Code == AbsX:
			x, moves = e.Value, moves+1
		case e.Type == EvAbs:
			y = e.Value
		}
	}
	if diff := cmp.Diff([]Event{ev(EvKey, 30, 1), ev(EvKey, 30, 0)}, keys); diff != "" {
		t.Error(diff)
	}
	if x != 999 || y != 999 || moves > 50 {
		t.Errorf("pointer at %d,%d after %d moves", x, y, moves)
	}
	if c := s.Counters(Main); c.Merged < 900 || c.Refused != 0 {
		t.Errorf("%+v", c)
	}
}

func TestStopAndReset(t *testing.T) {
	eachProfile(t, func(t *testing.T, s *server, cfg fakeguest.Config) {
		d := s.plug(t, "in", cfg)
		s.press(30, true)
		d.reads(ev(EvKey, 30, 1), syn)

		if err := d.Stop(); err != nil {
			t.Fatal(err)
		}
		s.press(31, true) // refused
		s.press(31, false)
		s.Scroll(0, 120, 0)
		s.Pointer(0, 7, 8)
		s.press(30, false)
		if err := d.Cont(); err != nil {
			t.Fatal(err)
		}
		d.reads(ev(EvAbs, AbsX, 7), ev(EvAbs, AbsY, 8), ev(EvKey, 30, 0), syn)

		s.press(42, true)
		s.Pointer(0, 9, 9)
		d.reads(ev(EvKey, 42, 1), syn)
		if err := d.Reset(); err != nil {
			t.Fatal(err)
		}
		s.press(42, false)
		d.boot()
		d.quiet()
		s.press(30, true)
		d.reads(ev(EvKey, 30, 1), syn)
		s.press(30, false)
		d.reads(ev(EvKey, 30, 0), syn)
	})
}

// TestFrontEndGone kills QEMU while a key is down; the next one knows nothing of it.
func TestFrontEndGone(t *testing.T) {
	s := serve(t)
	cfg := fakeguest.Config{Profile: vhostusertest.QEMU11B}
	d := s.plug(t, "in", cfg)
	s.press(30, true)
	d.reads(ev(EvKey, 30, 1), syn)
	d.Quit()
	d = s.plug(t, "in", cfg)
	s.press(30, false)
	d.quiet()
	s.press(30, true)
	d.reads(ev(EvKey, 30, 1), syn)
}

// TestEnd ends the server while keys and fingers are down: the guest hears of their
// release.
func TestEnd(t *testing.T) {
	s := serve(t)
	cfg := fakeguest.Config{Profile: vhostusertest.QEMU11B}
	d, touch := s.plug(t, "in", cfg), s.plug(t, "touch", cfg)
	s.press(30, true)
	d.reads(ev(EvKey, 30, 1), syn)
	s.Touch(0, 5, 1, 2, true)
	s.Frame(0)
	touch.reads(ev(EvAbs, AbsSlot, 5), ev(EvAbs, AbsTrackingID, 0), ev(EvAbs, AbsMTX, 1), ev(EvAbs, AbsMTY, 2), ev(EvKey, BtnTouch, 1),
		ev(EvAbs, AbsX, 1), ev(EvAbs, AbsY, 2), syn)
	s.end()
	d.reads(ev(EvKey, 30, 0), syn)
	touch.reads(ev(EvAbs, AbsTrackingID, -1), ev(EvKey, BtnTouch, 0), syn)
}

func TestLights(t *testing.T) {
	s := serve(t)
	d := s.plug(t, "in", fakeguest.Config{Profile: vhostusertest.QEMU11B})
	send := func(e Event, size int) {
		t.Helper()
		wire := make([]byte, 16)
		e.Put(wire)
		if n, err := d.Cursor.Do(wire[:size], nil); err != nil || n != 0 {
			t.Fatalf("status event: %d bytes written, %v", n, err)
		}
	}
	for _, c := range []struct {
		e    Event
		size int
		want uint32
	}{
		{ev(EvLED, LEDCaps, 1), 8, 2},
		{ev(EvLED, LEDScroll, 1), 16, 6}, // a longer buffer
		{ev(EvLED, LEDNum, 1), 7, 6},     // too short
		{ev(EvLED, 3, 1), 8, 6},          // not one of ours
		{ev(EvRep, 0, 250), 8, 6},
		{ev(EvLED, LEDCaps, 0), 8, 4},
	} {
		send(c.e, c.size)
		if got := s.LEDs(); got != c.want {
			t.Errorf("lights %#b after %+v, want %#b", got, c.e, c.want)
		}
	}
}

// TestBadBuffers posts what no driver should: the events wait for a good buffer.
func TestBadBuffers(t *testing.T) {
	s := serve(t)
	d := s.plug(t, "in", fakeguest.Config{Profile: vhostusertest.QEMU11B})
	d.reads() // four good buffers are there
	s.press(30, true)
	for range 2 {
		if _, ok := d.next(5 * time.Second); !ok {
			t.Fatal("no event")
		}
	}
	s.press(30, false)
	for range 2 {
		if _, ok := d.next(5 * time.Second); !ok {
			t.Fatal("no event")
		}
	}
	s.press(31, true)
	bad := func(op *fakeguest.Op, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := d.Ctrl.Wait(op, nil, 5*time.Second); err != nil || n != 0 {
			t.Fatalf("bad buffer: %d bytes written, %v", n, err)
		}
	}
	bad(d.Ctrl.Submit(make([]byte, 8), 0)) // read-only
	op, err := d.Ctrl.Submit(nil, EventSize-1)
	if err != nil {
		t.Fatal(err)
	}
	var wire [EventSize]byte
	if _, err := d.Ctrl.Wait(op, wire[:], 5*time.Second); err != nil {
		t.Fatal(err)
	}
	bad(d.Ctrl.SubmitSG(nil, []guestmem.Entry{{Addr: 1 << 50, Len: 8}})) // nowhere
	d.post(4)
	d.reads(ev(EvKey, 31, 1), syn)
	c := s.Counters(Main)
	for end := time.Now().Add(5 * time.Second); c.Waiting > 0 && time.Now().Before(end); c = s.Counters(Main) {
		time.Sleep(time.Millisecond) // counted after the driver could read it
	}
	if c.Events != 6 || c.Waiting != 0 {
		t.Errorf("%+v", c)
	}
}

// TestConfigOverSocket selects as QEMU does for a driver that writes one byte at a
// time: the whole space goes over for each.
func TestConfigOverSocket(t *testing.T) {
	s := serve(t)
	d := s.plug(t, "touch", fakeguest.Config{Profile: vhostusertest.QEMU11B})
	space, err := d.FE.GetConfig(0, ConfigSize)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range []byte{cfgAbsInfo, AbsSlot} {
		space[i] = b
		if err := d.FE.SetConfig(0, space); err != nil {
			t.Fatal(err)
		}
		if space, err = d.FE.GetConfig(0, ConfigSize); err != nil {
			t.Fatal(err)
		}
	}
	want := make([]byte, ConfigSize)
	want[0], want[1], want[2] = cfgAbsInfo, AbsSlot, 20
	binary.LittleEndian.PutUint32(want[12:], Slots-1)
	if !bytes.Equal(space, want) {
		t.Errorf("config space % x", space)
	}
	if f := d.FE.Offered(); f&vhostuser.FVersion1 == 0 || f&0xffffff != 0 {
		t.Errorf("features %#x", f)
	}
}

// BenchmarkTap is a key pressed and released, through the rings, until the driver
// has read it.
func BenchmarkTap(b *testing.B) {
	s := serve(b)
	d := s.plug(b, "in", fakeguest.Config{Profile: vhostusertest.QEMU11B})
	b.ReportAllocs()
	for b.Loop() {
		s.press(30, true)
		s.press(30, false)
		for range 4 {
			if _, ok := d.next(5 * time.Second); !ok {
				b.Fatal("no event")
			}
			d.post(1)
		}
	}
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own allocations would be counted; the run without it checks this")
	}
	s := serve(t)
	d := s.plug(t, "in", fakeguest.Config{Profile: vhostusertest.QEMU11B})
	i := uint16(0)
	tap := func() {
		i++
		s.Pointer(0, i, 1)
		s.press(30, true)
		s.Scroll(0, 120, 0)
		s.press(30, false)
		for range 7 {
			if _, ok := d.next(5 * time.Second); !ok {
				t.Fatal("no event")
			}
			d.post(1)
		}
	}
	s.Pointer(0, 0, 1)
	s.Frame(0)
	d.reads(ev(EvAbs, AbsX, 0), ev(EvAbs, AbsY, 1), syn)
	for range 100 {
		tap()
	}
	if n := testing.AllocsPerRun(200, tap); n != 0 {
		t.Errorf("%v allocations per group of events", n)
	}
}

package proxy_test

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy/proxytest"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// TestKeymap comes by value.
func TestKeymap(t *testing.T) {
	text := strings.Repeat("xkb_keymap {};\n", 5000)
	comp := waylandtest.New(t, waylandtest.Config{Seat: true, Devices: proto.WlSeatCapabilityKeyboard, Keymap: text})
	c := connect(t, newProxy(t, comp, proxy.Config{}))
	seat := proto.WlSeat(c.Bind("wl_seat", 7))
	seat.GetKeyboard(&c.Out, proto.WlKeyboard(c.NewID(proto.IWlKeyboard, 7)))
	c.Roundtrip()
	e := c.Last(proto.IWlKeyboard, proto.EvWlKeyboardKeymap)
	if e == nil || e.Items[0].Kind != proxy.ItemBytes || string(e.Items[0].Bytes) != text {
		t.Fatalf("keymap event %+v", e)
	}
}

// TestHugeKeymap ends the client, whose compositor has gone mad.
func TestHugeKeymap(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{Seat: true, Devices: proto.WlSeatCapabilityKeyboard, Keymap: strings.Repeat("x", 1<<20+1)})
	c := connect(t, newProxy(t, comp, proxy.Config{}))
	proto.WlSeat(c.Bind("wl_seat", 7)).GetKeyboard(&c.Out, proto.WlKeyboard(c.NewID(proto.IWlKeyboard, 7)))
	c.Flush()
	if err := c.Wait(); err == nil || !strings.Contains(err.Error(), "1048577 bytes, limit 1048576") {
		t.Errorf("error %v", err)
	}
}

// pipe makes a pipe whose ends close with the test.
func pipe(t *testing.T) (r *os.File, w *dmabuf.FD) {
	t.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r = os.NewFile(uintptr(ends[0]), "read end")
	t.Cleanup(func() { _ = r.Close() })
	return r, dmabuf.NewFD(ends[1], "write end")
}

// selection is what the ordinary and the primary selection have in common: the same
// messages with the same opcodes.
type selection struct {
	manager, device, source, offer proto.InterfaceID
	offerSource, setSel, receive   uint16
	create, getDevice              uint16
	evOffer, evSend                uint16
}

// TestSelection passes pipes from client to client: the one that has the selection
// gets the write end, the other's read end sees what it writes and then the end.
func TestSelection(t *testing.T) {
	for name, s := range map[string]selection{
		"clipboard": {proto.IWlDataDeviceManager, proto.IWlDataDevice, proto.IWlDataSource, proto.IWlDataOffer,
			proto.OpWlDataSourceOffer, proto.OpWlDataDeviceSetSelection, proto.OpWlDataOfferReceive,
			proto.OpWlDataDeviceManagerCreateDataSource, proto.OpWlDataDeviceManagerGetDataDevice, proto.EvWlDataDeviceDataOffer, proto.EvWlDataSourceSend},
		"primary": {proto.IZwpPrimarySelectionDeviceManagerV1, proto.IZwpPrimarySelectionDeviceV1, proto.IZwpPrimarySelectionSourceV1, proto.IZwpPrimarySelectionOfferV1,
			proto.OpZwpPrimarySelectionSourceV1Offer, proto.OpZwpPrimarySelectionDeviceV1SetSelection, proto.OpZwpPrimarySelectionOfferV1Receive,
			proto.OpZwpPrimarySelectionDeviceManagerV1CreateSource, proto.OpZwpPrimarySelectionDeviceManagerV1GetDevice, proto.EvZwpPrimarySelectionDeviceV1DataOffer, proto.EvZwpPrimarySelectionSourceV1Send},
	} {
		t.Run(name, func(t *testing.T) { testSelection(t, s) })
	}
}

func testSelection(t *testing.T, s selection) {
	comp := waylandtest.New(t, waylandtest.Config{Seat: true, Selection: true})
	p := newProxy(t, comp, proxy.Config{})
	from, to := connect(t, p), connect(t, p)
	device := func(c *proxytest.Client) (manager, dev wire.ID) {
		manager = c.Bind(s.manager.String(), 1)
		seat := c.Bind("wl_seat", 1)
		dev = c.NewID(s.device, 1)
		c.Out.Begin(manager, s.getDevice)
		c.Out.Object(dev)
		c.Out.Object(seat)
		c.Out.End()
		c.Roundtrip()
		return manager, dev
	}
	manager, dev := device(from)
	device(to)
	src := from.NewID(s.source, 1)
	from.Out.Begin(manager, s.create)
	from.Out.Object(src)
	from.Out.End()
	from.Out.Begin(src, s.offerSource)
	from.Out.String("text/plain")
	from.Out.End()
	from.Out.Begin(dev, s.setSel)
	from.Out.Object(src)
	from.Out.Uint(1)
	from.Out.End()
	from.Roundtrip()
	to.Eventually("an offer", func() bool { return to.Last(s.device, s.evOffer) != nil })
	d := to.Last(s.device, s.evOffer).Decoder()
	offer := d.Object()
	if offer < wire.ServerIDs {
		t.Fatalf("offer %#x", uint32(offer))
	}
	for round := range 3 {
		r, w := pipe(t)
		to.Out.Begin(offer, s.receive)
		to.Out.String("text/plain")
		to.Out.End()
		to.Item(proxy.Item{Kind: proxy.ItemPipe, FD: w})
		to.Flush()
		from.Eventually("a request to send", func() bool { return from.Count(s.source, s.evSend) == round+1 })
		e := from.Last(s.source, s.evSend)
		if e.Items[0].Kind != proxy.ItemPipe {
			t.Fatalf("item %+v", e.Items[0])
		}
		text := strings.Repeat("selected ", 100*round)
		if _, err := unix.Write(e.Items[0].FD.Int(), []byte(text)); err != nil {
			t.Fatal(err)
		}
		e.Items[0].Close()
		if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil && !strings.Contains(err.Error(), "not support") {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != text {
			t.Errorf("round %d: %d bytes of %d (%v)", round, len(got), len(text), err)
		}
	}
	// An offer that nobody wants any more.
	to.Out.Begin(offer, map[bool]uint16{true: proto.OpWlDataOfferDestroy, false: proto.OpZwpPrimarySelectionOfferV1Destroy}[s.offer == proto.IWlDataOffer])
	to.Out.End()
	to.Roundtrip()
}

// TestColourProfiles pass by value in both directions.
func TestColourProfiles(t *testing.T) {
	comp := waylandtest.New(t, waylandtest.Config{ICC: strings.Repeat("host profile ", 1000)})
	p := newProxy(t, comp, proxy.Config{})
	c := connect(t, p)
	m := proto.WpColorManagerV1(c.Bind("wp_color_manager_v1", 1))
	icc := proto.WpImageDescriptionCreatorIccV1(c.NewID(proto.IWpImageDescriptionCreatorIccV1, 1))
	m.CreateIccCreator(&c.Out, icc)
	c.Out.Begin(wire.ID(icc), proto.OpWpImageDescriptionCreatorIccV1SetIccFile)
	c.Out.Uint(6)
	c.Out.Uint(7)
	c.Out.End()
	c.Item(proxy.Item{Kind: proxy.ItemBytes, Bytes: []byte("guest profile")})
	d := proto.WpImageDescriptionV1(c.NewID(proto.IWpImageDescriptionV1, 1))
	icc.Create(&c.Out, d)
	d.GetInformation(&c.Out, proto.WpImageDescriptionInfoV1(c.NewID(proto.IWpImageDescriptionInfoV1, 1)))
	c.Roundtrip()
	if got := comp.Profiles(); len(got) != 1 || got[0] != "profile" {
		t.Errorf("profiles %q", got)
	}
	e := c.Last(proto.IWpImageDescriptionInfoV1, proto.EvWpImageDescriptionInfoV1IccFile)
	if e == nil || string(e.Items[0].Bytes) != strings.Repeat("host profile ", 1000) {
		t.Fatalf("event %+v", e)
	}
	if c.Last(proto.IWpImageDescriptionInfoV1, proto.EvWpImageDescriptionInfoV1Done) == nil {
		t.Error("no end of the information")
	}
}

// TestClocks translates times both ways, whichever clock the compositor has.
func TestClocks(t *testing.T) {
	const offset, at = -3_000_000_123, 70_000_000_000
	for _, clock := range []uint32{unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME} {
		comp := waylandtest.New(t, waylandtest.Config{Presentation: true, Clock: clock, PresentedAt: at})
		d := perBuffer
		d.ClockOffset = offset
		c := proxytest.New(t, newProxy(t, comp, proxy.Config{}), proxytest.Options{Dialect: d})
		w := c.NewWindow()
		pres := proto.WpPresentation(c.Bind("wp_presentation", 1))
		pres.Feedback(&c.Out, w.Surface, proto.WpPresentationFeedback(c.NewID(proto.IWpPresentationFeedback, 1)))
		timing := proto.WpCommitTimingManagerV1(c.Bind("wp_commit_timing_manager_v1", 1))
		timer := proto.WpCommitTimerV1(c.NewID(proto.IWpCommitTimerV1, 1))
		timing.GetTimer(&c.Out, timer, w.Surface)
		timer.SetTimestamp(&c.Out, 0, 80, 5)
		w.Surface.Commit(&c.Out)
		c.Roundtrip()
		var id proto.WpPresentationClockIdEvent
		if err := id.Decode(c.Last(proto.IWpPresentation, proto.EvWpPresentationClockId).Message); err != nil || id.ClkId != unix.CLOCK_MONOTONIC {
			t.Errorf("clock %d (%v)", id.ClkId, err)
		}
		var ev proto.WpPresentationFeedbackPresentedEvent
		if err := ev.Decode(c.Last(proto.IWpPresentationFeedback, proto.EvWpPresentationFeedbackPresented).Message); err != nil {
			t.Fatal(err)
		}
		var mono, other unix.Timespec
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil || unix.ClockGettime(int32(clock), &other) != nil {
			t.Fatal("no clock")
		}
		delta := mono.Nano() - other.Nano()
		near := func(what string, got, want int64) {
			t.Helper()
			if d := got - want; d < -2e6 || d > 2e6 {
				t.Errorf("clock %d: %s %d, want %d", clock, what, got, want)
			}
		}
		near("presented", int64(ev.TvSecLo)*1e9+int64(ev.TvNsec), at+offset+delta)
		if got := comp.Timestamps(); len(got) == 1 {
			near("timestamp", got[0], 80e9+5-offset-delta)
		} else {
			t.Errorf("timestamps %v", got)
		}
	}
}

package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

func TestWaylandThroughConn(t *testing.T) {
	g, h := pair(t, Limits{})
	big := bytes.Repeat([]byte("wayland."), MaxPayload/8)[:MaxPayload-4]
	go func() {
		_ = g.WriteWayland([]Item{{Kind: ItemResource, Device: DeviceImport, ID: 7, Offset: 4096}}, []byte("abcd"))
		_ = g.WriteWayland(nil, big)
		g.Close()
	}()
	f, err := h.Recv()
	if err != nil || f.Type != TypeWayland {
		t.Fatal(f.Type, err)
	}
	items, data, err := DecodeWayland(f.Payload, Guest, nil)
	if err != nil || string(data) != "abcd" || len(items) != 1 || items[0].ID != 7 || items[0].Offset != 4096 {
		t.Fatal(items, data, err)
	}
	if f, err = h.Recv(); err != nil || !bytes.Equal(f.Payload[4:], big) {
		t.Fatal("the large frame is not what was sent", err)
	}
	if _, err = h.Recv(); err != io.EOF {
		t.Fatalf("error %v, want EOF", err)
	}
}

// TestUpdateParts: a rectangle of any size arrives as it was, in frames that fit.
func TestUpdateParts(t *testing.T) {
	g, h := pair(t, Limits{})
	for _, c := range []struct {
		name              string
		w, h, bpp, stride int
		noise             bool
	}{
		{"solid", 640, 480, 4, 2600, false},
		{"small", 3, 2, 4, 40, false},
		{"packed", 500, 300, 4, 2000, false},
		{"strided noise", 333, 400, 4, 2000, true},
		{"rows longer than a frame", 20000, 3, 16, 20000*16 + 8, true},
		{"one byte", 1, 1, 1, 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			pix := make([]byte, c.stride*c.h)
			for i := range pix {
				if c.name == "solid" {
					pix[i] = byte(i % 4) // the stride has whole pixels
					continue
				}
				pix[i] = byte(i / 97)
				if c.noise {
					pix[i] = byte(rand.Uint32())
				}
			}
			sent := make(chan error, 1)
			go func() {
				err := g.WriteUpdate(Update{Buffer: 9, X: 5, Y: 6, W: uint32(c.w), H: uint32(c.h), BytesPerPixel: uint8(c.bpp)}, pix, c.stride)
				sent <- errors.Join(err, g.WriteWayland(nil, nil))
			}()
			got := make([]byte, len(pix))
			covered, compressed := 0, 0
			for {
				f, err := h.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if f.Type == TypeWayland {
					break
				}
				var u Update
				if err := u.Decode(f.Payload); err != nil {
					t.Fatal(err)
				}
				if (u.Encoding == EncodingSolid) != (c.name == "solid") {
					t.Errorf("encoding %d", u.Encoding)
				}
				if u.Encoding != EncodingRaw {
					compressed++
				}
				p, err := u.Unpack(nil)
				if err != nil {
					t.Fatal(err)
				}
				row := int(u.W) * c.bpp
				for y := range int(u.H) {
					at := (int(u.Y)-6+y)*c.stride + (int(u.X)-5)*c.bpp
					copy(got[at:at+row], p[y*row:])
				}
				covered += len(p)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			row := c.w * c.bpp
			for y := range c.h {
				if !bytes.Equal(got[y*c.stride:y*c.stride+row], pix[y*c.stride:y*c.stride+row]) {
					t.Fatalf("row %d differs", y)
				}
			}
			if covered != row*c.h || (compressed > 0) == c.noise && row*c.h >= smallest {
				t.Errorf("%d bytes, want %d; %d frames compressed, noise: %v", covered, row*c.h, compressed, c.noise)
			}
		})
	}
}

// TestNotCompressed: an end that did not say that it takes compressed updates gets none.
func TestNotCompressed(t *testing.T) {
	g, h := pair(t, Limits{})
	g.compress = false
	go func() { _ = g.WriteUpdate(Update{W: 64, H: 64, BytesPerPixel: 4}, make([]byte, 64*256), 256) }()
	f, err := h.Recv()
	var u Update
	if err != nil || u.Decode(f.Payload) != nil || u.Encoding != EncodingRaw {
		t.Fatal(err, u.Encoding)
	}
}

// TestOneByteAtATime: borders of reads mean nothing.
func TestOneByteAtATime(t *testing.T) {
	in := frames(Frame{TypeWayland, append(appendItems(nil, nil), "12345678"...)}, Frame{TypeUpdate, goodUpdate()})
	for cut := range len(in) + 1 {
		c := newConn(script{iotest.OneByteReader(bytes.NewReader(in[:cut]))}, Host, Limits{})
		n := 0
		var err error
		for err == nil {
			if _, err = c.Recv(); err == nil {
				n++
			}
		}
		whole := cut == 0 || cut == 20 || cut == len(in)
		if whole != (err == io.EOF) || !whole && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d of %d bytes: %d frames, error %v", cut, len(in), n, err)
		}
		c.Close()
	}
}

func TestManyWriters(t *testing.T) {
	g, h := pair(t, Limits{})
	var wg sync.WaitGroup
	const writers, each = 8, 200
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				size := (i * 997) % 40000
				if err := g.WriteWayland(nil, bytes.Repeat([]byte{byte(w + 1)}, size)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range writers * each {
		f, err := h.Recv()
		if err != nil {
			t.Fatal(err)
		}
		data := f.Payload[4:]
		if len(data) > 0 && len(bytes.Trim(data, string(data[:1]))) != 0 {
			t.Fatal("frames of two writers are mixed")
		}
	}
	wg.Wait()
}

func TestClock(t *testing.T) {
	g, h := pair(t, Limits{})
	keepReceiving(t, g)
	keepReceiving(t, h)
	check := func() {
		t.Helper()
		offset, rtt, ok := h.Clock()
		if !ok || time.Duration(offset).Abs() > rtt || rtt <= 0 {
			t.Errorf("offset %v of the same clock, rtt %v, %v", time.Duration(offset), rtt, ok)
		}
	}
	check() // the handshake measured it
	h.clock = clock{}
	if err := h.Ping(); err != nil {
		t.Fatal(err)
	}
	if err := h.Ping(); err != nil { // has no effect while the first is on its way, or is a second measurement
		t.Fatal(err)
	}
	for ctx := timeout(t); ; time.Sleep(time.Millisecond) {
		if _, _, ok := h.Clock(); ok {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("no answer to the ping")
		}
	}
	check()
}

func TestClockTakesTheFastest(t *testing.T) {
	var k clock
	for i, rtt := range []uint64{900, 100, 500} {
		g, ok := k.ping(1000)
		if !ok {
			t.Fatal("ping refused")
		}
		if _, again := k.ping(1000); again {
			t.Fatal("a second ping before the first's answer")
		}
		k.pong(Ping{Cookie: g.Cookie + 1, Clock: 1}, 1001) // not ours
		k.pong(Ping{Cookie: g.Cookie, Clock: 6000 + rtt/2 + uint64(i)}, 1000+rtt)
	}
	k.pong(Ping{Cookie: k.cookie, Clock: 1}, 1001) // nobody waits
	if offset, rtt, ok := k.get(); !ok || offset != 5001 || rtt != 100 {
		t.Errorf("offset %d, rtt %d, %v", offset, rtt, ok)
	}
	for range samples { // the fast one is too old in the end
		g, _ := k.ping(1000)
		k.pong(Ping{Cookie: g.Cookie, Clock: 7000}, 1700)
	}
	if _, rtt, _ := k.get(); rtt != 700 {
		t.Errorf("rtt %d, want 700", rtt)
	}
}

// TestHandshakeRefused: each mistake ends the handshake with an error at both ends.
func TestHandshakeRefused(t *testing.T) {
	hello := frames(Frame{TypeHello, goodHello(t)})
	pong := frames(Frame{TypePong, Ping{99, 0}.Append(nil)})
	for _, c := range []struct {
		name, said, word string
	}{
		{"garbage", "GET / HTTP/1.1\r\n\r\n", "type 71"},
		{"wayland first", string(frames(Frame{TypeWayland, make([]byte, 4)})), "Wayland before Hello"},
		{"second hello", string(hello) + string(hello), "Hello before Welcome"},
		{"wayland before welcome", string(hello) + string(frames(Frame{TypeWayland, make([]byte, 4)})), "Wayland before Welcome"},
		{"wrong cookie", string(hello) + string(pong), "cookie"},
		{"bad token", string(frames(Frame{TypeHello, replaced(goodHello(t), 8, 1)})), "token"},
		{"name refused", string(frames(Frame{TypeHello, replaced(goodHello(t), 42, 'N')})), "not you"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := sockets(t)
			if _, err := a.Write([]byte(c.said)); err != nil {
				t.Fatal(err)
			}
			_, _, err := ServerHandshake(timeout(t), b, Limits{}, func(h *Hello) (uint16, error) {
				if strings.HasPrefix(h.Name, "N") {
					return 0, errors.New("not you")
				}
				return 0, nil
			})
			if err == nil || !strings.Contains(err.Error(), c.word) {
				t.Errorf("error %v, want %q", err, c.word)
			}
			_ = a.SetReadDeadline(time.Now().Add(patience))
			heard, _ := io.ReadAll(a)
			if !bytes.Contains(heard, []byte(c.word)) || !bytes.Contains(heard, []byte{byte(TypeError), 0, 0, 0}) {
				t.Errorf("the guest heard %q, want an Error with %q", heard, c.word)
			}
		})
	}
}

func TestClientHandshakeRefused(t *testing.T) {
	welcome := func(v uint16) string {
		w := Welcome{Version: v}
		return string(frames(Frame{TypeWelcome, w.Append(nil)}))
	}
	for _, c := range []struct {
		name, said, word string
	}{
		{"error", string(frames(Frame{TypeError, []byte("full\nup")})), `full\nup`},
		{"version 2", welcome(2), "version 2"},
		{"version 0", welcome(0), "version 0"},
		{"wayland", string(frames(Frame{TypeWayland, make([]byte, 4)})), "before Welcome"},
		{"end", "", "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := sockets(t)
			_, _ = b.Write([]byte(c.said))
			_ = b.CloseWrite()
			_, _, err := ClientHandshake(timeout(t), a, Hello{}, Limits{})
			if err == nil || !strings.Contains(err.Error(), c.word) {
				t.Errorf("error %v, want %q", err, c.word)
			}
		})
	}
}

func TestHandshakeTimeout(t *testing.T) {
	a, b := sockets(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, _, err := ServerHandshake(ctx, b, Limits{}, admit)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the guest's end sees %v, want EOF", err)
	}
}

// TestPingFlood: a peer that sends and never reads does not keep this end from
// reading, nor Fail and Close from ending.
func TestPingFlood(t *testing.T) {
	g, h := pair(t, Limits{})
	keepReceiving(t, h)
	// The guest floods and reads nothing: the host's answers stop, its reading goes on.
	for range 50000 {
		if err := g.writePing(TypePing, Ping{1, 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.WriteWayland(nil, []byte("last")); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	h.Fail(errors.New("enough"))
	h.Close()
	if d := time.Since(start); d > 10*failTime {
		t.Errorf("Fail and Close took %v", d)
	}
}

func TestErrorFrame(t *testing.T) {
	g, h := pair(t, Limits{})
	h.Fail(errors.New("bad \xff byte" + strings.Repeat("!", 2000)))
	_, err := g.Recv()
	var remote *RemoteError
	if !errors.As(err, &remote) || !strings.HasPrefix(remote.Text, "bad ? byte!") || len(remote.Text) > MaxError {
		t.Errorf("error %v", err)
	}
	g.Fail(err) // an error is not answered with an error
	g.Close()
	if _, err := h.Recv(); err != io.EOF {
		t.Errorf("host: %v, want EOF", err)
	}
}

func TestCloseEndsRecv(t *testing.T) {
	g, _ := pair(t, Limits{})
	end := keepReceiving(t, g)
	g.Close()
	if err := <-end; err != ErrClosed {
		t.Errorf("Recv: %v, want ErrClosed", err)
	}
	if err := g.WriteWayland(nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("write: %v, want ErrClosed", err)
	}
}

// TestSteadyStateDoesNotAllocate: frames come and go in buffers that exist.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	g, h := pair(t, Limits{})
	data, items := make([]byte, 4096), []Item{{Kind: ItemResource, ID: 5}, {Kind: ItemMemory}}
	pix := make([]byte, 320*200*4)
	var got []Item
	var scratch []byte
	step := func() {
		if g.WriteWayland(items, data) != nil || g.WriteUpdate(Update{Buffer: 3, W: 320, H: 200, BytesPerPixel: 4}, pix, 1280) != nil {
			t.Fatal("write failed")
		}
		f, err := h.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err = DecodeWayland(f.Payload, Guest, got[:0]); err != nil {
			t.Fatal(err)
		}
		if f, err = h.Recv(); err != nil {
			t.Fatal(err)
		}
		var u Update
		if err = u.Decode(f.Payload); err != nil {
			t.Fatal(err)
		}
		if scratch, err = u.Unpack(scratch); err != nil {
			t.Fatal(err)
		}
	}
	step()
	if n := testing.AllocsPerRun(200, step); n >= 1 {
		t.Errorf("%.1f allocations for two frames", n)
	}
}

// bare is a stream without writev.
type bare struct{ net.Conn }

func TestWithoutWritev(t *testing.T) {
	a, b := sockets(t)
	g, h := join(t, bare{a}, bare{b}, Limits{})
	data := bytes.Repeat([]byte("12345678"), 20000)
	go func() { _ = g.WriteWayland(nil, data) }()
	f, err := h.Recv()
	if err != nil || !bytes.Equal(f.Payload[4:], data) {
		t.Fatal("not what was sent", err)
	}
}

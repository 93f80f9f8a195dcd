package link

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var tokens = rapid.StringMatching(`[A-Za-z0-9_-]{0,15}`)

func TestHelloRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Hello{
			Version: rapid.Uint16Range(1, 9).Draw(t, "version"), Flags: rapid.Uint16().Draw(t, "flags"),
			Token: tokens.Draw(t, "token"), Clock: rapid.Uint64().Draw(t, "clock"),
			RenderDev: rapid.Uint64().Draw(t, "dev"), Name: rapid.StringN(0, 64, 64).Draw(t, "name"),
		}
		want.Name = fitText(want.Name, MaxName)
		p, err := want.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		var got Hello
		if err := got.Decode(p); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

func TestWelcomeRoundTrip(t *testing.T) {
	want := Welcome{Version: 1, Flags: 7, Clock: 1 << 60}
	var got Welcome
	if err := got.Decode(want.Append(nil)); err != nil || got != want {
		t.Fatalf("got %+v %v, want %+v", got, err, want)
	}
}

func TestNewToken(t *testing.T) {
	a, b := NewToken(), NewToken()
	if len(a) != MaxToken || a == b || checkToken(a) != nil {
		t.Errorf("tokens %q and %q", a, b)
	}
}

func TestFitText(t *testing.T) {
	for _, c := range []struct {
		in, want string
		limit    int
	}{
		{"abc", "abc", 3}, {"abcd", "abc", 3}, {"aäb", "a", 2}, {"aäb", "aä", 3}, {"a\xffb", "a?b", 3}, {"", "", 3},
	} {
		if got := fitText(c.in, c.limit); got != c.want || !utf8.ValidString(got) {
			t.Errorf("fitText(%q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func drawItem(t *rapid.T) Item {
	switch rapid.IntRange(1, 4).Draw(t, "kind") {
	case 1:
		return Item{Kind: ItemResource, Device: uint8(rapid.IntRange(0, 1).Draw(t, "device")),
			ID: rapid.Uint32Min(1).Draw(t, "id"), Offset: rapid.Uint64().Draw(t, "offset")}
	case 2:
		return Item{Kind: ItemPipe, ID: rapid.Uint32().Draw(t, "pipe") | 1}
	case 3:
		return Item{Kind: ItemBytes, Bytes: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes")}
	}
	return Item{Kind: ItemMemory}
}

func TestWaylandRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(drawItem), 0, 9).Draw(t, "items")
		data := rapid.SliceOfN(rapid.Byte(), 0, 99).Draw(t, "data")
		p := append(appendItems(nil, want), data...)
		if n, err := SizeItems(want); err != nil || n != len(p)-len(data) {
			t.Fatalf("SizeItems %d %v, made %d", n, err, len(p)-len(data))
		}
		got, rest, err := DecodeWayland(p, Guest, nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" || !bytes.Equal(rest, data) {
			t.Fatalf("items %s, data %x, want %x", d, rest, data)
		}
	})
}

func TestUpdateRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, h := rapid.IntRange(1, 60).Draw(t, "w"), rapid.IntRange(1, 60).Draw(t, "h")
		bpp := rapid.IntRange(1, MaxPixelBytes).Draw(t, "bpp")
		pix := make([]byte, w*h*bpp)
		step := rapid.IntRange(0, 251).Draw(t, "step")
		for i := range pix {
			pix[i] = byte(i / 64 * step)
		}
		u := Update{Buffer: rapid.Uint32().Draw(t, "buffer"), X: 1, Y: 2, W: uint32(w), H: uint32(h),
			BytesPerPixel: uint8(bpp), Raw: uint32(len(pix))}
		var k packer
		u.Pixels, u.Encoding = k.pack(pix, bpp, w*bpp, h, w*bpp, true)
		if len(u.Pixels) > len(pix) {
			t.Fatalf("%d bytes became %d", len(pix), len(u.Pixels))
		}
		var got Update
		if err := got.Decode(u.Append(nil)); err != nil {
			t.Fatal(err)
		}
		out, err := got.Unpack(nil)
		if err != nil || !bytes.Equal(out, pix) {
			t.Fatalf("unpack: %v", err)
		}
		got.Pixels, u.Pixels = nil, nil
		if d := cmp.Diff(u, got); d != "" {
			t.Fatal(d)
		}
	})
}

func TestControlRoundTrip(t *testing.T) {
	if c, err := DecodeClose(Close{7, NoReader}.Append(nil)); err != nil || c != (Close{7, NoReader}) {
		t.Error(c, err)
	}
	if c, err := DecodeCredit(Credit{7, 9}.Append(nil)); err != nil || c != (Credit{7, 9}) {
		t.Error(c, err)
	}
	if c, err := DecodePing(Ping{7, 9}.Append(nil)); err != nil || c != (Ping{7, 9}) {
		t.Error(c, err)
	}
}

// replaced returns b with some bytes changed.
func replaced(b []byte, at int, with ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[at:], with)
	return b
}

func goodHello(t testing.TB) []byte {
	p, err := (&Hello{Version: 1, Flags: 1, Token: "abc", Clock: 5, RenderDev: 6, Name: "näme"}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func goodUpdate() []byte {
	u := Update{Buffer: 3, W: 2, H: 2, BytesPerPixel: 4, Raw: 16, Pixels: make([]byte, 16)}
	return u.Append(nil)
}

// TestRefused: what must not be taken, and a word that the error must say.
func TestRefused(t *testing.T) {
	hello, update := goodHello(t), goodUpdate()
	wayland := func(from Role) func([]byte) error {
		return func(p []byte) error { _, _, err := DecodeWayland(p, from, nil); return err }
	}
	frame := func(from Role) func([]byte) error {
		return func(p []byte) error { _, err := DecodeHeader(p, from); return err }
	}
	dHello := func(p []byte) error { var h Hello; return h.Decode(p) }
	dUpdate := func(p []byte) error {
		var u Update
		if err := u.Decode(p); err != nil {
			return err
		}
		_, err := u.Unpack(nil)
		return err
	}
	dClose := func(p []byte) error { _, err := DecodeClose(p); return err }
	dCredit := func(p []byte) error { _, err := DecodeCredit(p); return err }
	items := func(it ...Item) []byte { return appendItems(nil, it) }
	header := func(b ...byte) []byte { return append(b, make([]byte, 8-len(b))...) }
	for _, c := range []struct {
		name   string
		decode func([]byte) error
		p      []byte
		word   string
	}{
		{"type 0", frame(Guest), header(0), "type 0"},
		{"type 11", frame(Guest), header(11), "type 11"},
		{"flags", frame(Guest), header(8, 1, 0, 0, 16), "flags 0x1"},
		{"zero", frame(Guest), header(8, 0, 0, 1, 16), "0x100"},
		{"welcome of the guest", frame(Guest), header(2, 0, 0, 0, 12), "wrong end"},
		{"hello of the host", frame(Host), header(1, 0, 0, 0, 50), "wrong end"},
		{"update of the host", frame(Host), header(4, 0, 0, 0, 50), "wrong end"},
		{"giant", frame(Guest), header(3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff), "4294967295 bytes"},
		{"above MaxPayload", frame(Guest), header(3, 0, 0, 0, 1, 0, 4), "262145 bytes"},
		{"short ping", frame(Guest), header(8, 0, 0, 0, 15), "15 bytes"},
		{"empty data", frame(Guest), header(5, 0, 0, 0, 4), "4 bytes"},
		{"hello, short", dHello, hello[:helloSize-1], "need 42"},
		{"hello, magic", dHello, replaced(hello, 0, 'X'), "XPBL"},
		{"hello, version 0", dHello, replaced(hello, 4, 0, 0), "version 0"},
		{"hello, token of 16", dHello, replaced(hello, 8, []byte("0123456789abcdef")...), "token"},
		{"hello, text after NUL", dHello, replaced(hello, 8, 'a', 0, 'b'), "token"},
		{"hello, token with newline", dHello, replaced(hello, 8, '\n'), "0xa"},
		{"hello, token not ASCII", dHello, replaced(hello, 8, 0xc3), "0xc3"},
		{"hello, name_len", dHello, replaced(hello, 40, 99), "name_len 99"},
		{"hello, name cut", dHello, hello[:len(hello)-1], "name_len 5"},
		{"hello, name not UTF-8", dHello, replaced(hello, 42, 0xff), "UTF-8"},
		{"items, none", wayland(Guest), []byte{0, 0, 0}, "need 4"},
		{"items, too many", wayland(Guest), []byte{1, 4, 0, 0}, "1025 items"},
		{"items, zero", wayland(Guest), []byte{0, 0, 1, 0}, "zero field"},
		{"items, missing", wayland(Guest), []byte{1, 0, 0, 0}, "0 bytes left"},
		{"items, kind 0", wayland(Guest), replaced(items(Item{Kind: ItemMemory}), 4, 0), "kind 0"},
		{"items, kind 5", wayland(Guest), replaced(items(Item{Kind: ItemMemory}), 4, 5), "kind 5"},
		{"item, zero", wayland(Guest), replaced(items(Item{Kind: ItemMemory}), 6, 1), "zero field"},
		{"item, device 2", wayland(Guest), items(Item{Kind: ItemResource, Device: 2, ID: 1}), "device 2"},
		{"item, resource 0", wayland(Guest), items(Item{Kind: ItemResource}), "id 0"},
		{"item, resource of the host", wayland(Host), items(Item{Kind: ItemResource, ID: 1}), "from the host"},
		{"item, memory of the host", wayland(Host), items(Item{Kind: ItemMemory}), "only the guest"},
		{"item, memory with id", wayland(Guest), items(Item{Kind: ItemMemory, ID: 4}), "id 4"},
		{"item, memory with offset", wayland(Guest), items(Item{Kind: ItemMemory, Offset: 4}), "offset 4"},
		{"item, even pipe of the guest", wayland(Guest), items(Item{Kind: ItemPipe, ID: 2}), "pipe id 2"},
		{"item, odd pipe of the host", wayland(Host), items(Item{Kind: ItemPipe, ID: 1}), "pipe id 1"},
		{"item, pipe 0", wayland(Host), items(Item{Kind: ItemPipe}), "pipe id 0"},
		{"item, pipe with device", wayland(Guest), items(Item{Kind: ItemPipe, ID: 1, Device: 1}), "device 1"},
		{"item, more bytes than there are", wayland(Guest), replaced(items(Item{Kind: ItemBytes, Bytes: make([]byte, 8)}), 8, 9), "9 bytes, there are 8"},
		{"item, bytes of 4 GiB", wayland(Guest), replaced(items(Item{Kind: ItemBytes, Bytes: make([]byte, 8)}), 8, 255, 255, 255, 255), "limit"},
		{"item, padding", wayland(Guest), replaced(items(Item{Kind: ItemBytes, Bytes: []byte{1}}), 27, 1), "padding"},
		{"second item", wayland(Guest), replaced(items(Item{Kind: ItemMemory}, Item{Kind: ItemMemory}), 20, 9), "item 1 of 2"},
		{"update, no pixels", dUpdate, update[:updateSize], "28 bytes"},
		{"update, w 0", dUpdate, replaced(update, 12, 0), "0x2"},
		{"update, far away", dUpdate, replaced(update, 4, 0, 0, 0, 0xff), "4278190080,0"},
		{"update, huge", dUpdate, replaced(update, 12, 0, 0, 1, 0, 0, 0, 1), "limit"},
		{"update, encoding", dUpdate, replaced(update, 20, 3), "encoding 3"},
		{"update, solid of two pixels", dUpdate, replaced(update, 20, 2)[:updateSize+8], "one pixel of 4"},
		{"update, 0 bytes per pixel", dUpdate, replaced(update, 21, 0), "0 bytes per pixel"},
		{"update, 17 bytes per pixel", dUpdate, replaced(update, 21, 17), "17 bytes per pixel"},
		{"update, raw", dUpdate, replaced(update, 24, 15), "raw is 15"},
		{"update, zero", dUpdate, replaced(update, 22, 1), "zero field"},
		{"update, cut", dUpdate, update[:len(update)-1], "15 bytes of raw"},
		{"update, grown", dUpdate, replaced(update, 20, 1), "compressed to 16"},
		{"update, nonsense compressed", dUpdate, replaced(update, 20, 1)[:len(update)-4], "compressed pixels"},
		{"update, says it is 1 MiB", dUpdate, append(replaced(update, 20, 1)[:updateSize], 0x80, 0x80, 0x40, 0), "1048576 bytes, must be 16"},
		{"close, reason 2", dClose, Close{1, 2}.Append(nil), "reason 2"},
		{"close, short", dClose, make([]byte, 7), "7 bytes"},
		{"credit 0", dCredit, Credit{1, 0}.Append(nil), "0 bytes"},
		{"credit, giant", dCredit, Credit{1, 1 << 31}.Append(nil), "2147483648"},
		{"error, not UTF-8", func(p []byte) error { _, err := DecodeError(p); return err }, []byte{0xff}, "UTF-8"},
	} {
		err := c.decode(c.p)
		if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), c.word) {
			t.Errorf("%s: error %v, want a protocol error with %q", c.name, err, c.word)
		}
	}
}

// TestTooBig: what this end refuses to send.
func TestTooBig(t *testing.T) {
	g, _ := pair(t, Limits{})
	big := make([]byte, MaxPayload)
	for name, err := range map[string]error{
		"frame":  g.WriteFrame(TypeWayland, big, []byte{1}),
		"items":  g.WriteWayland(make([]Item, MaxItems+1), nil),
		"bytes":  g.WriteWayland([]Item{{Kind: ItemBytes, Bytes: big}}, nil),
		"both":   g.WriteWayland([]Item{{Kind: ItemBytes, Bytes: big[:MaxBytes]}}, big[:4096]),
		"update": g.WriteUpdate(Update{W: MaxDim + 1, H: 1, BytesPerPixel: 1}, big, MaxDim+1),
		"stride": g.WriteUpdate(Update{W: 10, H: 2, BytesPerPixel: 4}, big, 39),
		"short":  g.WriteUpdate(Update{W: 10, H: 2, BytesPerPixel: 4}, big[:79], 40),
	} {
		if !errors.Is(err, ErrTooBig) {
			t.Errorf("%s: error %v, want ErrTooBig", name, err)
		}
	}
	if err := g.WriteFrame(TypeWelcome, make([]byte, welcomeSize)); err == nil {
		t.Error("the guest sent a Welcome")
	}
	if g.Stats().FramesOut != 1+pings {
		t.Errorf("%d frames went out, want the handshake's %d alone", g.Stats().FramesOut, 1+pings)
	}
}

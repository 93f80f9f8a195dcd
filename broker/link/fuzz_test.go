package link

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// script is a peer that says what it says, and takes everything.
type script struct{ io.Reader }

func (script) Write(p []byte) (int, error) { return len(p), nil }
func (script) Close() error                { return nil }

func frames(fs ...Frame) []byte {
	var out []byte
	for _, f := range fs {
		out = append(Header{f.Type, uint32(len(f.Payload))}.Append(out), f.Payload...)
	}
	return out
}

// FuzzFrames feeds a stream to a host's end: it ends without a panic, and what was
// taken is within the limits.
func FuzzFrames(f *testing.F) {
	wayland := appendItems(nil, []Item{{Kind: ItemResource, ID: 9}, {Kind: ItemBytes, Bytes: []byte("keymap")}})
	f.Add(frames(Frame{TypeWayland, append(wayland, "payload."...)}, Frame{TypeUpdate, goodUpdate()}))
	f.Add(frames(Frame{TypePing, Ping{1, 2}.Append(nil)}, Frame{TypePong, Ping{1, 2}.Append(nil)}))
	f.Add(frames(Frame{TypeData, []byte{2, 0, 0, 0, 1}}, Frame{TypeClose, Close{2, EndOfData}.Append(nil)}))
	f.Add(frames(Frame{TypeCredit, Credit{1, 5}.Append(nil)}, Frame{TypeClose, Close{1, NoReader}.Append(nil)}))
	f.Add(frames(Frame{TypeError, []byte("no")}))
	f.Add([]byte{3, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, in []byte) {
		c := newConn(script{bytes.NewReader(in)}, Host, Limits{})
		defer c.Close()
		var items []Item
		for {
			fr, err := c.Recv()
			if err != nil {
				var remote *RemoteError
				if err != io.EOF && !errors.Is(err, ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &remote) {
					t.Fatalf("error %v of no known kind", err)
				}
				break
			}
			if len(fr.Payload) > MaxPayload {
				t.Fatalf("payload of %d bytes", len(fr.Payload))
			}
			if fr.Type == TypeWayland {
				if items, _, err = DecodeWayland(fr.Payload, Guest, items[:0]); err == nil && len(items) > MaxItems {
					t.Fatalf("%d items", len(items))
				}
			}
		}
		if len(c.in) > HeaderSize+MaxPayload {
			t.Fatalf("buffer of %d bytes", len(c.in))
		}
	})
}

// FuzzHello: what is taken can be said again and is then the same.
func FuzzHello(f *testing.F) {
	f.Add(goodHello(f))
	f.Add(goodHello(f)[:20])
	f.Fuzz(func(t *testing.T, p []byte) {
		var h Hello
		if h.Decode(p) != nil {
			if h != (Hello{}) {
				t.Fatalf("refused, but there is %+v", h)
			}
			return
		}
		again, err := h.Append(nil)
		if err != nil || !bytes.Equal(again, p) {
			t.Fatalf("%x became %x (%v)", p, again, err)
		}
	})
}

// FuzzWayland: what is taken can be said again and is then the same.
func FuzzWayland(f *testing.F) {
	f.Add(appendItems(nil, []Item{{Kind: ItemPipe, ID: 3}, {Kind: ItemBytes, Bytes: []byte("123456789")}, {Kind: ItemMemory}}), true)
	f.Add(appendItems(nil, []Item{{Kind: ItemPipe, ID: 4}}), false)
	f.Fuzz(func(t *testing.T, p []byte, guest bool) {
		from := Host
		if guest {
			from = Guest
		}
		items, data, err := DecodeWayland(p, from, nil)
		if err != nil {
			if items != nil || data != nil {
				t.Fatal("refused, but there are items or data")
			}
			return
		}
		if again := append(appendItems(nil, items), data...); !bytes.Equal(again, p) {
			t.Fatalf("%x became %x", p, again)
		}
	})
}

// FuzzUpdate: whatever the pixels, they unpack to raw bytes or to an error.
func FuzzUpdate(f *testing.F) {
	f.Add(goodUpdate())
	u := Update{Buffer: 1, W: 64, H: 64, BytesPerPixel: 4, Raw: 64 * 64 * 4}
	var k packer
	pix := make([]byte, u.Raw)
	for _, want := range []uint8{EncodingSolid, EncodingS2} {
		if u.Pixels, u.Encoding = k.pack(pix, 4, 256, 64, 256, true); u.Encoding != want {
			f.Fatalf("encoding %d, want %d", u.Encoding, want)
		}
		f.Add(u.Append(nil))
		pix[5] = 1
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var u Update
		if u.Decode(p) != nil {
			return
		}
		out, err := u.Unpack(nil)
		if err == nil && (len(out) != int(u.Raw) || u.Raw > MaxRaw) {
			t.Fatalf("%d bytes of pixels, raw is %d", len(out), u.Raw)
		}
	})
}

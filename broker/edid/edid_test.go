package edid

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// modes are the sizes and rates of real monitors and of windows.
var modes = []Params{
	{Width: 640, Height: 480},
	{Width: 800, Height: 600, MilliHz: 60317},
	{Width: 1024, Height: 768, MilliHz: 75000},
	{Width: 1025, Height: 771},
	{Width: 1280, Height: 800},
	{Width: 1366, Height: 768, MilliHz: 59900},
	{Width: 1920, Height: 1080, WidthMM: 527, HeightMM: 296, Name: "DELL U2412M", SerialText: "ABC123"},
	{Width: 1080, Height: 1920},
	{Width: 1920, Height: 1200, MilliHz: 50000},
	{Width: 2560, Height: 1440, MilliHz: 144000},
	{Width: 3440, Height: 1440, MilliHz: 100000},
	{Width: 3840, Height: 2160},
	{Width: 3840, Height: 2160, MilliHz: 120000},
	{Width: 4095, Height: 1024},
	{Width: 4096, Height: 2160},
	{Width: 5120, Height: 2880},
	{Width: 2160, Height: 4096},
	{Width: 7680, Height: 4320},
	{Width: 7680, Height: 4320, MilliHz: 30000},
}

// preferred reads the preferred mode out of an EDID with code of its own: the
// first detailed timing, or the preferred Type I timing of a DisplayID section.
func preferred(t testing.TB, b []byte) (w, h uint32, milliHz uint64) {
	t.Helper()
	d := b[54:72]
	clock := uint64(binary.LittleEndian.Uint16(d)) * 10_000
	w, hb := uint32(d[2])|uint32(d[4]>>4)<<8, uint32(d[3])|uint32(d[4]&15)<<8
	h, vb := uint32(d[5])|uint32(d[7]>>4)<<8, uint32(d[6])|uint32(d[7]&15)<<8
	if len(b) > BlockSize {
		e := b[BlockSize:]
		if e[0] != 0x70 || sum(e[1:5+int(e[2])+1]) != 0 {
			t.Fatalf("extension % x", e)
		}
		found := false
		for s := e[5 : 5+int(e[2])]; len(s) > 0; s = s[3+int(s[2]):] {
			if s[0] != didTimingI {
				continue
			}
			found = true
			d := s[3:23]
			at := func(i int) uint32 { return uint32(binary.LittleEndian.Uint16(d[i:]))&0x7fff + 1 }
			clock = (uint64(d[0]) | uint64(d[1])<<8 | uint64(d[2])<<16 + 0) * 10_000
			clock += 10_000
			w, hb, h, vb = at(4), at(6), at(12), at(14)
			if d[3]&0x80 == 0 {
				t.Fatal("the extension's timing is not preferred")
			}
		}
		if !found {
			t.Fatal("the extension has no timing")
		}
	}
	return w, h, clock * 1000 / (uint64(w+hb) * uint64(h+vb))
}

func TestModes(t *testing.T) {
	for _, p := range modes {
		t.Run(fmt.Sprintf("%dx%d@%d", p.Width, p.Height, p.MilliHz), func(t *testing.T) {
			b := Build(p)
			if err := Check(b); err != nil {
				t.Fatal(err)
			}
			w, h, hz := preferred(t, b)
			want := uint64(p.MilliHz)
			if want == 0 {
				want = 60000
			}
			if w != p.Width || h != p.Height || hz+60 < want || hz > want+60 {
				t.Errorf("preferred mode %dx%d at %d mHz, want %dx%d at %d", w, h, hz, p.Width, p.Height, want)
			}
			if big := p.Width > 4095 || p.Height > 4095 || p.MilliHz > 100000 && p.Width == 3840; big != (len(b) == 256) {
				t.Errorf("%d bytes", len(b))
			}
		})
	}
}

// TestDecoder asks Debian's edid-decode, which knows the standards better than
// we do.
func TestDecoder(t *testing.T) {
	tool, err := exec.LookPath("edid-decode")
	if err != nil {
		t.Skip("edid-decode is not installed (apt-get install edid-decode); TestModes checks the structure without it")
	}
	for _, p := range modes {
		t.Run(fmt.Sprintf("%dx%d@%d", p.Width, p.Height, p.MilliHz), func(t *testing.T) {
			p.Serial = 3
			cmd := exec.Command(tool, "--check", "-")
			cmd.Stdin = strings.NewReader(string(Build(p)))
			out, err := cmd.CombinedOutput()
			text := string(out)
			if err != nil || !strings.Contains(text, "EDID conformity: PASS") {
				t.Fatalf("%v\n%s", err, text)
			}
			// Our three letters are not in its list, which it says of DisplayID only.
			text = strings.ReplaceAll(text, "Unknown OUI", "")
			for _, line := range strings.Split(text, "\n") {
				if strings.Contains(line, "out of range") || strings.Contains(line, "ubious") {
					t.Errorf("%s", text)
				}
			}
		})
	}
}

func TestKnownBytes(t *testing.T) {
	b := Build(Params{Width: 1920, Height: 1080, WidthMM: 527, HeightMM: 296, Manufacturer: "DEL", Product: 0x1234, Serial: 0x01020304, Name: "a"})
	for _, c := range []struct {
		what string
		at   int
		want []byte
	}{
		{"manufacturer DEL", 8, []byte{0x10, 0xac}},
		{"product and serial", 10, []byte{0x34, 0x12, 4, 3, 2, 1}},
		{"version", 18, []byte{1, 4}},
		{"size in cm", 21, []byte{53, 30}},
		{"established timings", 35, []byte{0x21, 0x08, 0}},
		{"first standard timing 1680x1050", 38, []byte{0xb3, 0x00}},
		{"size, blanking and sync of the detailed timing", 56,
			[]byte{0x80, 0xa0, 0x70, 0x38, 0x1f, 0x40, 0x30, 0x20, 0x35, 0x00, 0x0f, 0x28, 0x21, 0, 0, 0x1a}},
		{"name", 90, []byte("\x00\x00\x00\xfc\x00a\n           ")},
		{"dummy", 108, []byte{0, 0, 0, 0x10, 0}},
	} {
		if got := b[c.at : c.at+len(c.want)]; string(got) != string(c.want) {
			t.Errorf("%s: % x, want % x", c.what, got, c.want)
		}
	}
	// 2080 x 1111 x 60 Hz = 138.65 MHz
	if got := binary.LittleEndian.Uint16(b[54:]); got != 13865 {
		t.Errorf("pixel clock %d0 kHz", got)
	}
}

func TestAnyParams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Params{
			Width: rapid.Uint32().Draw(t, "w"), Height: rapid.Uint32().Draw(t, "h"),
			MilliHz: rapid.Uint32().Draw(t, "hz"),
			WidthMM: rapid.Uint32().Draw(t, "wmm"), HeightMM: rapid.Uint32().Draw(t, "hmm"),
			Name: rapid.String().Draw(t, "name"), SerialText: rapid.String().Draw(t, "serial"),
			Manufacturer: rapid.String().Draw(t, "manufacturer"),
		}
		if rapid.Bool().Draw(t, "sane") {
			p.Width, p.Height, p.MilliHz = p.Width%9000, p.Height%9000, p.MilliHz%250000
		}
		b := Build(p)
		if err := Check(b); err != nil {
			t.Fatal(err)
		}
		n := p.normal()
		var tb testing.TB = new(testing.T)
		w, h, hz := preferred(tb, b)
		if tb.Failed() || w != n.Width || h != n.Height {
			t.Fatalf("preferred %dx%d of %+v", w, h, n)
		}
		if d := int64(hz) - int64(n.MilliHz); d*d > int64(n.MilliHz/500)*int64(n.MilliHz/500) {
			t.Fatalf("refresh %d mHz of %+v", hz, n)
		}
		for _, c := range b[95:108] {
			if c != '\n' && (c < ' ' || c > '~') {
				t.Fatalf("name % x", b[95:108])
			}
		}
	})
}

func TestCheck(t *testing.T) {
	good := Build(Params{Width: 5120, Height: 2880})
	for _, c := range []struct {
		name string
		b    []byte
		text string
	}{
		{"empty", nil, "length 0"},
		{"short", good[:127], "length 127"},
		{"not whole", good[:200], "length 200"},
		{"extension missing", good[:128], "1 extensions"},
		{"header", append([]byte{1}, good[1:]...), "header"},
		{"checksum", append(append([]byte{}, good[:255]...), good[255]+1), "block 1 is off by 1"},
	} {
		if err := Check(c.b); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := Check(good); err != nil {
		t.Error(err)
	}
	for _, n := range []int{0, 1, 127, 128, 255, 256} {
		if got := len(Cut(good[:n])); got != n {
			t.Errorf("%d bytes cut to %d", n, got)
		}
	}
	if got := len(Cut(append(good, make([]byte, 768)...))); got != 256 {
		t.Errorf("1024 bytes cut to %d", got)
	}
}

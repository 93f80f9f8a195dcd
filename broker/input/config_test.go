package input

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"go.uber.org/zap"
)

// selected reads the config space as a driver does: select, subsel, then all.
func selected(t *testing.T, d *device, sel, sub uint8) []byte {
	t.Helper()
	for off, b := range []byte{sel, sub} {
		if err := d.WriteConfig(uint32(off), []byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	space := bytes.Repeat([]byte{0xee}, ConfigSize)
	d.ReadConfig(space)
	return space
}

func testDevice(kind Kind) *device { return newDevice(kind, nil, zap.NewNop()) }

// TestConfigAnswers compares whole answers with bytes worked out by hand from
// linux/input-event-codes.h and the structures of virtio 1.3, 5.8.5.
func TestConfigAnswers(t *testing.T) {
	const range15 = "00000000" + "ff7f0000" + "00000000" + "00000000" + "00000000"
	for _, c := range []struct {
		name     string
		kind     Kind
		sel, sub uint8
		want     string // hex, or text
	}{
		{"main name", Main, 0x01, 0, "gpubroker keyboard and pointer"},
		{"touch name", Touch, 0x01, 0, "gpubroker touch screen"},
		{"serial", Main, 0x02, 0, ""},
		{"main ids", Main, 0x03, 0, "0600" + "f41a" + "5210" + "0100"},
		{"touch ids", Touch, 0x03, 0, "0600" + "f41a" + "5210" + "0200"},
		{"pointer property", Main, 0x10, 0, "01"},
		{"direct property", Touch, 0x10, 0, "02"},
		{"axes", Main, 0x11, 3, "03"},
		{"wheels", Main, 0x11, 2, "40" + "19"}, // 6; 8, 11, 12
		{"lights", Main, 0x11, 0x11, "07"},
		{"repeat", Main, 0x11, 0x14, "03"},
		{"no sounds", Main, 0x11, 0x12, ""},
		{"x", Main, 0x12, 0, range15},
		{"y", Main, 0x12, 1, range15},
		{"no z", Main, 0x12, 2, ""},
		{"touch axes", Touch, 0x11, 3, "03" + "0000000080" + "6002"}, // 0, 1; 47; 53, 54; 57
		{"slots", Touch, 0x12, 47, "00000000" + "0f000000" + "00000000" + "00000000" + "00000000"},
		{"touch x", Touch, 0x12, 53, range15},
		{"touch has no wheel", Touch, 0x11, 2, ""},
		{"tracking", Touch, 0x12, 57, "00000000" + "ffff0000" + "00000000" + "00000000" + "00000000"},
		{"unset", Main, 0, 0, ""},
		{"unknown", Main, 0xff, 0xff, ""},
		{"name has no subsel", Main, 0x01, 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, err := hex.DecodeString(c.want)
			if err != nil {
				want = []byte(c.want)
			}
			got := selected(t, testDevice(c.kind), c.sel, c.sub)
			head := []byte{c.sel, c.sub, byte(len(want)), 0, 0, 0, 0, 0}
			if !bytes.Equal(got[:8], head) {
				t.Errorf("head % x, want % x", got[:8], head)
			}
			full := append(slices.Clone(want), make([]byte, configData-len(want))...)
			if !bytes.Equal(got[8:], full) {
				t.Errorf("data\n% x, want\n% x", got[8:], full)
			}
		})
	}
}

// TestConfigKeys looks at the keys that decide what udev takes the devices for.
func TestConfigKeys(t *testing.T) {
	for _, c := range []struct {
		kind  Kind
		first uint16
		last  uint16
		want  bool
	}{
		{Main, 0, 0, false},         // KEY_RESERVED
		{Main, 1, 248, true},        // the keyboard
		{Main, 249, 0x10f, false},   // BTN_MISC
		{Main, 0x110, 0x117, true},  // the mouse
		{Main, 0x118, 0x15f, false}, // joysticks, gamepads, pens
		{Main, 0x160, 0x21f, true},
		{Main, 0x220, 0x223, false}, // the D-pad
		{Main, 0x224, 0x2bf, true},
		{Main, 0x2c0, 0xffff, false}, // BTN_TRIGGER_HAPPY
		{Touch, 0, 0x149, false},
		{Touch, 0x14a, 0x14a, true}, // BTN_TOUCH
		{Touch, 0x14b, 0xffff, false},
	} {
		for code := uint32(c.first); code <= uint32(c.last); code++ {
			if got := c.kind.has(uint16(code)); got != c.want {
				t.Errorf("%v: key %#x: %t", c.kind, code, got)
			}
		}
	}
}

// TestConfigWhole writes as QEMU does: the whole space, with what was read before.
func TestConfigWhole(t *testing.T) {
	d := testDevice(Main)
	space := selected(t, d, cfgName, 0)
	space[0], space[1] = cfgAbsInfo, AbsY
	if err := d.WriteConfig(0, space); err != nil {
		t.Fatal(err)
	}
	d.ReadConfig(space)
	if space[0] != cfgAbsInfo || space[1] != AbsY || binary.LittleEndian.Uint32(space[12:]) != AxisMax {
		t.Errorf("config space % x", space)
	}
	if err := d.WriteConfig(130, make([]byte, 7)); !errors.Is(err, ErrRange) {
		t.Errorf("write beyond the end: %v", err)
	}
	d.Reset()
	d.ReadConfig(space)
	if space[0] != 0 || space[2] != 0 {
		t.Errorf("config space after reset % x", space)
	}
}

// FuzzConfig writes anything anywhere: an answer never says more than it has, and
// what a driver reads depends on nothing but the two bytes.
func FuzzConfig(f *testing.F) {
	for kind := range uint8(2) {
		for _, a := range answers[kind] {
			f.Add(kind, uint32(0), []byte{a.sel, a.sub}, uint16(ConfigSize))
		}
	}
	f.Add(uint8(0), uint32(1), []byte{1}, uint16(1))
	f.Add(uint8(1), uint32(135), []byte{1, 2}, uint16(300))
	f.Fuzz(func(t *testing.T, kind uint8, off uint32, p []byte, read uint16) {
		d := testDevice(Kind(kind % 2))
		err := d.WriteConfig(off, p)
		if fits := uint64(off)+uint64(len(p)) <= ConfigSize; fits != (err == nil) {
			t.Fatalf("write of %d bytes at %d: %v", len(p), off, err)
		}
		got := bytes.Repeat([]byte{0xee}, int(read%512))
		d.ReadConfig(got)
		sel := d.sel.Load()
		var want [512]byte
		d.kind.readConfig(want[:ConfigSize], uint8(sel), uint8(sel>>8))
		if !bytes.Equal(got, want[:len(got)]) {
			t.Fatalf("read % x, want % x", got, want[:len(got)])
		}
		if size := int(want[2]); size > configData || slices.ContainsFunc(want[8+size:], func(b byte) bool { return b != 0 }) {
			t.Fatalf("size %d, data % x", size, want[8:ConfigSize])
		}
	})
}

func FuzzDecodeEvent(f *testing.F) {
	var p [EventSize]byte
	Event{Type: EvLED, Code: LEDCaps, Value: 1}.Put(p[:])
	f.Add(p[:])
	f.Add(p[:7])
	f.Fuzz(func(t *testing.T, p []byte) {
		e, err := DecodeEvent(p)
		if (err == nil) != (len(p) >= EventSize) {
			t.Fatalf("%d bytes: %v", len(p), err)
		}
		if err != nil {
			if !errors.Is(err, ErrShort) {
				t.Fatal(err)
			}
			return
		}
		var back [EventSize]byte
		e.Put(back[:])
		if !bytes.Equal(back[:], p[:EventSize]) {
			t.Fatalf("% x became % x", p, back)
		}
	})
}

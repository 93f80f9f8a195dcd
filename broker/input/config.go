package input

import (
	"encoding/binary"
	"fmt"
)

// ConfigSize is the size of struct virtio_input_config in bytes (virtio spec 1.3,
// 5.8.4): select, subsel, size, five reserved, and a union of 128.
const ConfigSize = 8 + configData

const configData = 128

// Values of select (virtio spec 1.3, 5.8.5).
const (
	cfgUnset   = 0x00
	cfgName    = 0x01
	cfgSerial  = 0x02
	cfgDevIDs  = 0x03
	cfgProps   = 0x10
	cfgEvBits  = 0x11
	cfgAbsInfo = 0x12
)

// Kind is which of the devices.
type Kind uint8

// The devices.
const (
	Main  Kind = iota // keyboard, absolute pointer, wheel
	Touch             // multi-touch screen
)

func (k Kind) String() string {
	if k == Touch {
		return "touch screen"
	}
	return "keyboard and pointer"
}

// answer is what the config space shows for one select and subsel.
type answer struct {
	sel, sub uint8
	size     uint8
	data     [configData]byte
}

// Vendor and product are those of virtio on PCI (virtio spec 1.3, 4.1.2):
// 0x1040 + the device's id. The version tells the kinds apart.
const (
	idVendor  = 0x1af4
	idProduct = 0x1040 + 18
)

func text(sel uint8, s string) answer {
	a := answer{sel: sel, size: uint8(len(s))}
	copy(a.data[:], s)
	return a
}

// bits is a bitmap; its size ends at the last byte that is not 0.
func bits(sel, sub uint8, of ...int) answer {
	a := answer{sel: sel, sub: sub}
	for _, bit := range of {
		a.data[bit/8] |= 1 << (bit % 8)
		a.size = max(a.size, uint8(bit/8+1))
	}
	return a
}

// span lists the numbers from first to last.
func span(first, last int) (out []int) {
	for i := first; i <= last; i++ {
		out = append(out, i)
	}
	return out
}

// abs is struct virtio_input_absinfo: min, max, fuzz, flat, res.
func abs(axis uint8, most uint32) answer {
	a := answer{sel: cfgAbsInfo, sub: axis, size: 20}
	binary.LittleEndian.PutUint32(a.data[4:], most)
	return a
}

// ids is struct virtio_input_devids.
func ids(version uint16) answer {
	a := answer{sel: cfgDevIDs, size: 8}
	for i, v := range [...]uint16{busVirtual, idVendor, idProduct, version} {
		binary.LittleEndian.PutUint16(a.data[2*i:], v)
	}
	return a
}

// keys are all KEY_* that a keyboard may have; buttons, and the D-pad that would
// make udev see a joystick, lie between them.
func keys() []int {
	out := span(KeyEsc, keyMicMute)
	out = append(out, span(keyOK, btnDpadUp-1)...)
	return append(out, span(btnDpadEnd+1, keyLast)...)
}

// answers by kind. What is not here has size 0.
var answers = [...][]answer{
	Main: {
		text(cfgName, "gpubroker keyboard and pointer"),
		ids(1),
		bits(cfgProps, 0, propPointer),
		bits(cfgEvBits, EvKey, append(keys(), span(BtnLeft, btnTask)...)...),
		bits(cfgEvBits, EvRel, RelHWheel, RelWheel, RelWheelHiRes, RelHWheelHiRes),
		bits(cfgEvBits, EvAbs, AbsX, AbsY),
		bits(cfgEvBits, EvLED, LEDNum, LEDCaps, LEDScroll),
		bits(cfgEvBits, EvRep, 0, 1), // delay and period: the guest's kernel repeats
		abs(AbsX, AxisMax),
		abs(AbsY, AxisMax),
	},
	Touch: {
		text(cfgName, "gpubroker touch screen"),
		ids(2),
		bits(cfgProps, 0, propDirect),
		bits(cfgEvBits, EvKey, BtnTouch),
		bits(cfgEvBits, EvAbs, AbsX, AbsY, AbsSlot, AbsMTX, AbsMTY, AbsTrackingID),
		abs(AbsX, AxisMax),
		abs(AbsY, AxisMax),
		abs(AbsSlot, Slots-1),
		abs(AbsMTX, AxisMax),
		abs(AbsMTY, AxisMax),
		abs(AbsTrackingID, trackMax),
	},
}

// find returns the answer, nil for none.
func (k Kind) find(sel, sub uint8) *answer {
	for i := range answers[k] {
		if a := &answers[k][i]; a.sel == sel && a.sub == sub {
			return a
		}
	}
	return nil
}

// has reports whether the device declares a key or button.
func (k Kind) has(code uint16) bool {
	a := k.find(cfgEvBits, EvKey)
	return int(code) < 8*configData && a.data[code/8]&(1<<(code%8)) != 0
}

// readConfig fills p with the config space as it stands with this selection.
func (k Kind) readConfig(p []byte, sel, sub uint8) {
	var space [ConfigSize]byte
	space[0], space[1] = sel, sub
	if a := k.find(sel, sub); a != nil {
		space[2] = a.size
		copy(space[8:], a.data[:])
	}
	clear(p[copy(p, space[:]):])
}

// checkWrite refuses a write that does not lie in the config space. A driver
// writes select and subsel only; QEMU sends the whole space each time, so what
// the other bytes hold does not matter.
func checkWrite(off uint32, n int) error {
	if uint64(off)+uint64(n) > ConfigSize {
		return &OpError{Op: "write config", Err: fmt.Errorf("%w: bytes %d+%d, limit %d", ErrRange, off, n, ConfigSize)}
	}
	return nil
}

package input

import (
	"encoding/binary"
	"fmt"
)

// EventSize is the size of an [Event] on the wire in bytes.
const EventSize = 8

// Event is struct virtio_input_event (virtio spec 1.3, 5.8.6.2). Type, code and
// value are those of evdev.
type Event struct {
	Type  uint16
	Code  uint16
	Value uint32 // a negative number as its two's complement
}

// Put encodes e to the first EventSize bytes of p, which must have them.
func (e Event) Put(p []byte) {
	binary.LittleEndian.PutUint16(p, e.Type)
	binary.LittleEndian.PutUint16(p[2:], e.Code)
	binary.LittleEndian.PutUint32(p[4:], e.Value)
}

// DecodeEvent reads an event from the start of p; bytes beyond it do not count,
// as a driver's buffer may be longer.
func DecodeEvent(p []byte) (Event, error) {
	if len(p) < EventSize {
		return Event{}, &OpError{Op: "decode event", Err: fmt.Errorf("%w: %d bytes, an event has %d", ErrShort, len(p), EventSize)}
	}
	return Event{
		Type:  binary.LittleEndian.Uint16(p),
		Code:  binary.LittleEndian.Uint16(p[2:]),
		Value: binary.LittleEndian.Uint32(p[4:]),
	}, nil
}

// Event types and codes (linux/input-event-codes.h) that this package makes or
// takes.
const (
	EvSyn = 0x00
	EvKey = 0x01
	EvRel = 0x02
	EvAbs = 0x03
	EvLED = 0x11
	EvRep = 0x14

	SynReport = 0

	KeyEsc     = 1
	keyMicMute = 248 // the last key that XKB keymaps of today know below the buttons
	keyOK      = 0x160
	btnDpadUp  = 0x220
	btnDpadEnd = 0x223
	keyLast    = 0x2bf // BTN_TRIGGER_HAPPY, a joystick's, is the next one

	BtnLeft  = 0x110
	BtnRight = 0x111
	btnTask  = 0x117
	BtnTouch = 0x14a

	RelHWheel      = 0x06
	RelWheel       = 0x08
	RelWheelHiRes  = 0x0b
	RelHWheelHiRes = 0x0c

	AbsX          = 0x00
	AbsY          = 0x01
	AbsSlot       = 0x2f // ABS_MT_SLOT
	AbsMTX        = 0x35 // ABS_MT_POSITION_X
	AbsMTY        = 0x36 // ABS_MT_POSITION_Y
	AbsTrackingID = 0x39 // ABS_MT_TRACKING_ID

	LEDNum    = 0
	LEDCaps   = 1
	LEDScroll = 2

	propPointer = 0 // INPUT_PROP_POINTER
	propDirect  = 1 // INPUT_PROP_DIRECT

	busVirtual = 0x06
)

// Axes and slots as the guest sees them.
const (
	AxisMax  = 32767 // of every position; the least is 0
	Slots    = 16    // fingers
	trackMax = 65535 // of ABS_MT_TRACKING_ID
)

// codes is the size of the tables by key code: KEY_CNT.
const codes = 0x300

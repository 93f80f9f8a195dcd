package display

// Input takes what the user does in a sink's windows and gives it to the guest.
// Methods may be called on any goroutine and do not block; a sink calls Frame
// after each group of events that belong together (EV_SYN). Codes are those of
// linux/input-event-codes.h, as Wayland's own.
type Input interface {
	// Key is a key of the keyboard: code is the evdev key code. Repeats are not sent:
	// the guest makes its own. When the window loses the keyboard the sink releases
	// every key that it had reported as pressed.
	Key(head int, code uint16, pressed bool)
	// Pointer is the pointer's place in the head's picture, as parts of its width and
	// height in 1/32768, 0 at the left and top, 32767 at the right and bottom.
	Pointer(head int, x, y uint16)
	// Button is a pointer button (BTN_LEFT …). Buttons are released when the pointer
	// leaves while they are down only if the compositor says so.
	Button(head int, code uint16, pressed bool)
	// Scroll is a turn of the wheel in 120ths of a detent, positive down and right.
	Scroll(head int, vertical, horizontal int32)
	// Touch is a finger: slot 0 to 15; coordinates as in Pointer.
	Touch(head int, slot uint8, x, y uint16, down bool)
	// Frame ends a group.
	Frame(head int)
}

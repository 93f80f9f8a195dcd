package broker

import (
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// SinkEvents is the display.Events of a device that may not exist yet: sinks
// are made before the device that feeds them.
type SinkEvents struct {
	loop *Loop
	dev  *Device // render thread only

	shown [display.MaxHeads]shownEvent
}

// shownEvent carries the newest serial of a head to the render thread.
type shownEvent struct {
	serial atomic.Uint64
	posted atomic.Bool
	report func()
}

// NewSinkEvents makes the relay; Bind connects it.
func NewSinkEvents(loop *Loop) *SinkEvents {
	e := &SinkEvents{loop: loop}
	for head := range e.shown {
		s := &e.shown[head]
		s.report = func() {
			s.posted.Store(false)
			if e.dev != nil {
				e.dev.frameShown(head, s.serial.Load())
			}
		}
	}
	return e
}

// Bind sends the events to d from now on; nil ends that. Not on the render thread.
func (e *SinkEvents) Bind(d *Device) { e.loop.Call(func() { e.dev = d }) }

// ModeChanged raises the guest's display event. Any goroutine.
func (e *SinkEvents) ModeChanged(int) {
	e.loop.Post(func() {
		if e.dev != nil {
			e.dev.displayEvent()
		}
	})
}

// Shown completes the flushes that waited for the frame. Any goroutine; it
// allocates nothing.
func (e *SinkEvents) Shown(head int, serial uint64) {
	s := &e.shown[head]
	s.serial.Store(serial)
	if s.posted.CompareAndSwap(false, true) {
		e.loop.Post(s.report)
	}
}

// Closed hears that the user closed a window: the guest runs on.
func (e *SinkEvents) Closed(head int) {
	e.loop.Post(func() {
		if e.dev != nil {
			e.dev.windowClosed(head)
		}
	})
}

// Refresh presents every head again. Any goroutine.
func (e *SinkEvents) Refresh() {
	e.loop.Post(func() {
		if e.dev != nil {
			e.dev.refresh()
		}
	})
}

// windowClosed hears that the user closed a head's window. QEMU's gpu device has no
// message that presses the guest's power button, so the guest runs on, detached.
func (d *Device) windowClosed(head int) {
	d.log.Info("window closed; the guest runs on and the window comes back with its next mode change", zap.Int("head", head))
}

// displayEvent tells the guest to ask for the display info again.
func (d *Device) displayEvent() {
	d.eventsRead.Or(virtiogpu.EventDisplay)
	if d.modeA {
		return // QEMU's own gpu device refuses a config change, and tells the guest itself
	}
	if d.channel != nil {
		d.channel.ConfigChange()
	}
}

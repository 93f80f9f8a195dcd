package broker

import "github.com/gpubroker/gpubroker/broker/virtiogpu"

// SinkEvents is the display.Events of a device that may not exist yet: sinks
// are made before the device that feeds them.
type SinkEvents struct {
	loop *Loop
	dev  *Device // render thread only
}

// NewSinkEvents makes the relay; Bind connects it.
func NewSinkEvents(loop *Loop) *SinkEvents { return &SinkEvents{loop: loop} }

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

// Refresh presents every head again. Any goroutine.
func (e *SinkEvents) Refresh() {
	e.loop.Post(func() {
		if e.dev != nil {
			e.dev.refresh()
		}
	})
}

// displayEvent tells the guest to ask for the display info again.
func (d *Device) displayEvent() {
	d.eventsRead.Or(virtiogpu.EventDisplay)
	if d.channel != nil {
		d.channel.ConfigChange()
	}
}

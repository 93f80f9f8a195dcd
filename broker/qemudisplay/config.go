package qemudisplay

import (
	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
)

// DMABuf says when frames may go to QEMU as dma-bufs.
//
// The protocol does not tell whether QEMU's display can show them, but QEMU does
// not start a vhost-user-gpu device with a display that cannot ("The console
// requires display DMABUF support"). The exception is -display none, which is no
// display: QEMU then prints an error for every frame that comes as a dma-buf.
// With it, use DMABufOff (screendump works then) or the headless sink.
type DMABuf uint8

// The ways to decide.
const (
	// DMABufAuto, the default: dma-bufs for a QEMU that announces DMABUF2 (8.2 and
	// later), because only that message carries the modifier.
	DMABufAuto DMABuf = iota
	// DMABufOn: for older ones too, if the layout is linear or the driver's own.
	DMABufOn
	// DMABufOff: pixels always.
	DMABufOff
)

// Config describes a sink. The zero Config is usable.
type Config struct {
	Log    *zap.Logger    // may be nil
	Events display.Events // hears of mode changes and of the need to refresh; may be nil
	// Mode is head 0's until QEMU said what it wants; the others are off until
	// then. Zero means 1280x800.
	Mode   display.Mode
	DMABuf DMABuf
}

func (c *Config) fill() {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Mode.W == 0 || c.Mode.H == 0 {
		c.Mode.W, c.Mode.H = 1280, 800 // QEMU's own default
	}
	c.Mode.Enabled = true
}

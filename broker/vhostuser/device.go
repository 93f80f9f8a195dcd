package vhostuser

import (
	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/virtq"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Device is the virtio device behind a connection. The connection owns the
// protocol's state (features, memory, rings); the device owns what the
// commands mean.
//
// Two kinds of methods: those marked "any goroutine" must answer at once,
// because QEMU holds its big lock while it waits; the others run on the render
// thread, where the memory map and the rings live, so they need no locks.
type Device interface {
	// Features returns the virtio feature bits to offer. Any goroutine.
	Features() uint64
	// ReadConfig fills p with the config space from offset 0. Any goroutine.
	ReadConfig(p []byte)
	// WriteConfig takes a guest's write to the config space. Any goroutine.
	WriteConfig(off uint32, p []byte) error

	// Attach is called once, before anything else, with the guest's memory.
	Attach(mem *guestmem.Map)
	// SetFeatures takes the negotiated bits of both driver and front-end.
	SetFeatures(bits uint64) error
	// QueueStart hands over a ring that is ready to run, with its kick eventfd
	// (ownership passes). fresh says that the ring starts from index 0 with an
	// empty used ring, as after a device reset or a driver (re)load, and not as
	// after vm stop and cont.
	QueueStart(index int, q *virtq.Queue, kick *dmabuf.FD, fresh bool)
	// QueueStop takes the ring back; the device does not touch q afterwards.
	// Chains still held are abandoned.
	QueueStop(index int)
	// DisplaySocket hands over QEMU's display socket (ownership passes).
	DisplaySocket(fd *dmabuf.FD)
	// Reset is a virtio device reset: all resources and contexts go.
	Reset()
	// Detach says that the front-end is gone. All rings are stopped before.
	Detach()
}

// Restorer is what a Device implements that can take a VM over from a back-end that
// died. Restore is called on the render thread when everything that the front-end had
// said was said again, before rings start. Rings that start then have chains in
// flight: virtq.Queue.Inherited.
type Restorer interface{ Restore() }

// Executor runs functions on the render thread.
type Executor interface {
	// Call runs f there and waits for it.
	Call(f func())
}

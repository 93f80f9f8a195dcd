package vtest

import (
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl"
)

// GPU is the broker's resource table and renderer. Called on the render thread.
type GPU interface {
	// Capsets lists the capability sets of virgl contexts.
	Capsets() []virgl.CapsetInfo
	// FillCapset writes one into dst, which has its MaxSize bytes.
	FillCapset(id, version uint32, dst []byte) error
	// NewContext makes a client's context. capset 0 is the newest virgl. signalled is
	// called when a fence of Context.Fence, and those before it, have signalled.
	NewContext(capset uint32, name string, signalled func(fence uint32)) (Context, error)
}

// Context is a client's context with the resources that it made. Ids are the table's.
// Called on the render thread.
type Context interface {
	// Create makes a resource (a.ID is not looked at), with shm bytes of shared memory
	// behind it if that is not 0, whose descriptor the caller owns then.
	Create(a *virgl.ResourceArgs, shm uint64) (id uint32, mem *dmabuf.FD, err error)
	// CreateBlob makes a blob and returns a descriptor of its memory, the caller's.
	CreateBlob(a *virgl.BlobArgs) (id uint32, mem *dmabuf.FD, err error)
	// Unref destroys a resource.
	Unref(id uint32)
	// ToHost and FromHost move texels between a resource and data, or its shared memory
	// if data is nil.
	ToHost(t *virgl.Transfer, data []byte) error
	FromHost(t *virgl.Transfer, data []byte) error
	// Submit runs a command stream, at an address that is a multiple of 4.
	Submit(stream []byte) error
	// Fence returns the fence behind all work so far, and whether that is done already.
	Fence() (id uint32, done bool, err error)
	// Close destroys the resources and the context. signalled is not called any more.
	Close()
}

// Loop is the render thread (broker.Loop).
type Loop interface {
	Post(f func()) bool
	Call(f func())
	Watch(fd int, f func(ready bool))
	WatchFor(fd int, events int16)
	Unwatch(fd int)
	Again()
}

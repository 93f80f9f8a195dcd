// Package broker is the virtio-gpu device: it owns the guest's resources and
// contexts, runs 3D commands through a virgl.Renderer and hands finished
// pictures to a display.Sink.
//
// One RESOURCE_FLUSH travels one way: the kick wakes the [Loop], the control
// queue's chain is copied and decoded (broker/virtiogpu), a handler finds the
// resource, the resource knows its dmabuf.Buffer, and the sink takes the frame.
// All of that happens on the render thread, a locked OS thread that also owns
// virglrenderer's GL context; everything else (sockets, compositor, status)
// lives on ordinary goroutines and posts closures to the loop.
package broker

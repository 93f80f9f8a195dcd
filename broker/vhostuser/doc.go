// Package vhostuser is the back-end's side of the vhost-user protocol (QEMU,
// docs/interop/vhost-user.rst) as a GPU needs it: messages, the connection, and
// the state machine that turns them into calls of a [Device]. It knows nothing
// about graphics.
//
// A connection is served by one goroutine ([Backend.Serve]). Requests that only
// ask are answered there, at once, because QEMU holds its big lock while it
// waits; those that touch memory or rings run inside [Executor.Call], on the
// render thread.
package vhostuser

// Package wayland shows scanouts as windows of a Wayland compositor.
//
// A [Sink] is a client of the compositor. Each enabled head is an xdg_toplevel;
// frames reach it as dma-bufs through zwp_linux_dmabuf_v1 or as the memfd behind
// a wl_shm pool, never copied. The render thread only puts frames into a mailbox;
// one goroutine owns the connection, paces commits by the compositor's frame
// callbacks, and connects again when the compositor went away.
//
// Packages: wire has the wire format, proto the protocol generated from the XML
// in protocols/, waylandtest a compositor for tests.
package wayland

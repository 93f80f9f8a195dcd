// Package link is the framed protocol between gpubroker-guest and the broker: one
// client's Wayland stream, in which virtio-gpu resource ids stand where a Wayland
// socket has descriptors. It needs nothing but an ordered stream of bytes, so it
// runs over vsock, over a unix socket, over a channel of a virtio-serial port (see
// Mux), and inside a cross-domain context. Both ends use this package; it knows
// neither Wayland nor GPUs and links no C.
//
// # Frames
//
// All numbers are little endian. A frame is a header of 8 bytes and a payload:
//
//	type u8, flags u8 (0), zero u16, size u32 (payload bytes, at most MaxPayload)
//
// The guest's end speaks first. Unknown types, wrong sizes and wrong states end the
// connection with an Error frame. Fields called zero are 0. G: from the guest's end,
// H: from the host's.
//
//	 1 Hello    G  magic "GPBL", version u16 (1), flags u16 (1: takes and makes
//	               compressed updates), token [16]byte (text of at most 15 bytes,
//	               printable ASCII, padded with NUL; see below), clock u64
//	               (CLOCK_MONOTONIC ns), render_dev u64 (dev_t of the render node, 0
//	               if none), name_len u16, name (what the client is called, UTF-8,
//	               at most 64 bytes; not trusted)
//	 2 Welcome  H  version u16, flags u16 (1: takes compressed updates, 2: resources
//	               of the import device may be named, 4: resources of the GPU may be
//	               named), clock u64
//	 3 Wayland  G,H items u16, zero u16, the items, then Wayland bytes: any number of
//	               whole messages. An item is 16 bytes: kind u8, device u8, zero u16,
//	               id u32, offset u64.
//	               kind 1 resource: device 0 GPU or 1 import, id, offset (G)
//	               kind 2 pipe: id is a pipe's, see Pipes
//	               kind 3 bytes: id is their number; they follow the item, padded to
//	                      8 bytes (read-only memory: keymap, format table, ICC)
//	               kind 4 memory: content comes as Update frames (G)
//	 4 Update   G  buffer u32 (the client's id of the wl_buffer), x, y, w, h u32
//	               (pixels), encoding u8 (0 raw, 1 an S2 block, 2 one pixel for all),
//	               bytes_per_pixel u8 (1 to 16), zero u16, raw u32 (bytes of the
//	               pixels before encoding: w*h*bytes_per_pixel, at most MaxRaw;
//	               greater rectangles are sent in parts), pixels (packed rows; what
//	               is encoded is smaller than raw).
//	               Comes before the Wayland frame with the commit.
//	 5 Data     G,H pipe u32, bytes: of the pipe, from the end that has its content
//	 6 Close    G,H pipe u32, reason u32 (0 end of data, 1 nobody reads any more, or
//	               the data cannot be had)
//	 7 Credit   G,H pipe u32, bytes u32: so many more may be sent
//	 8 Ping     G,H cookie u64, clock u64
//	 9 Pong     G,H cookie u64 (the ping's), clock u64 (of who answers)
//	10 Error    G,H text, UTF-8, at most 1024 bytes: the connection ends
//
// The order of the start: G Hello; H any number of Pings, to know the guest's clock,
// each answered by a Pong; H Welcome. Until then neither end sends anything else.
// Version in Welcome is the one that both speak from there on, not above Hello's. Flags
// that an end does not know have no meaning for it.
//
// docs/link.md has all of this as a specification, and what goes around it on a port of
// virtio-serial (see Mux).
//
// # Items
//
// They take the places of descriptors in the order of the messages: one for each
// descriptor that the protocol's tables name, with two exceptions that let memory be
// shared per buffer and not per pool: wl_shm.create_pool has none, and
// wl_shm_pool.create_buffer has one, a resource or memory.
//
// # Pipes
//
// A pipe item stands for the write end of a pipe: whoever gets the message writes
// into it (wl_data_offer.receive, wl_data_source.send). The end that received the
// item makes a pipe, gives its write end to its peer (compositor or client), and sends what
// comes out of it as Data to the end that sent the item, which writes that to the descriptor
// that the item stood for. It sends no more than the credit that it has: Window bytes
// at first. Ids of pipes that G names are odd, those that H names are even, each is
// greater than the one before it. An end has named at most MaxPipes that are open.
// After its Close a pipe is gone; what was on its way to it is dropped.
//
// # Token
//
// Resource ids are small numbers that any program in the guest could name, so the
// host lets a client name only what is attached to its own context. Linux names a
// context after the thread that opened it (TASK_COMM, 15 bytes), or as
// VIRTGPU_CONTEXT_PARAM_DEBUG_NAME says. The guest's end makes a random Token, sets it as the
// thread's name before its first ioctl on a fresh open of the render node, keeps that
// for this client alone, and says it in Hello. It is text because a name is: 15 bytes at
// most, then NULs. All NUL: no resources of the GPU.
package link

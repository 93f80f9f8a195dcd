// Package wire is the Wayland wire format, for both ends of a connection:
// framing, arguments, and the descriptors that travel beside them
// (wayland.freedesktop.org/docs, "Wire Format").
//
// A message is an object id, a word of size<<16|opcode, and arguments padded to
// 32 bits. All numbers are in the host's byte order, which on the machines that
// gpubroker supports is little-endian. Which message owns a descriptor is known
// only from the protocol's tables; package proto has them.
//
// Nothing here blocks, locks or starts a goroutine: a [Conn] belongs to one
// goroutine, which polls its descriptor.
package wire

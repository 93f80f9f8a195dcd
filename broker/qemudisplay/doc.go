// Package qemudisplay shows a guest's screen in QEMU's own display, over the
// socket that a vhost-user-gpu device hands to its back-end at every DRIVER_OK
// (docs/interop/vhost-user-gpu.rst and hw/display/vhost-user-gpu.c of QEMU).
//
// A scanout goes out in one of two ways. As pixels: SCANOUT once per size, then
// UPDATE with the damaged rectangle, copied through the socket. As a dma-buf:
// DMABUF_SCANOUT2 whenever the buffer changes, then DMABUF_UPDATE, which QEMU
// answers when its display has done with the frame; nothing is copied. Which one
// a frame takes is decided per frame, see [DMABuf].
//
// QEMU believes what the back-end sends, so the order of messages matters:
//
//   - UPDATE before the first SCANOUT, or after the scanout was disabled, reads a
//     surface that is not there: QEMU crashes.
//   - UPDATE after a dma-buf without a SCANOUT in between shows a surface that QEMU
//     thinks it shows already: QEMU aborts.
//   - A payload shorter than its struct, or an UPDATE with fewer than w×h×4 bytes,
//     is read past its end (7.2) or refused (10).
//   - GET_EDID of a scanout that the device does not have is never answered.
//   - QEMU reads a message to its end with its big lock held, so a message is
//     complete in memory before its first byte is sent.
package qemudisplay

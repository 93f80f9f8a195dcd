// Package virtiogpu has the wire structs of a virtio-gpu device, as the virtio
// specification 1.3 (5.7) and linux/include/uapi/linux/virtio_gpu.h define
// them: decoding of what a guest sends, encoding of what the device answers, and
// the reverse of both for a fake guest. It keeps no state and knows no GPU.
//
// Everything is little-endian. Decode checks the length first, reads exactly
// the struct and ignores bytes behind it, because drivers may send more than
// the device knows of. Nothing here allocates by a number that a guest sent.
package virtiogpu

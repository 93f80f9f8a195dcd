// Package virglcmd builds virgl command streams, the bytes of
// VIRTIO_GPU_CMD_SUBMIT_3D, as a guest's virgl driver would: enough of them to
// clear, upload and draw. The fake guest and the renderer's tests use it; the
// broker itself never looks into a stream.
//
// Command numbers and layouts are those of virgl_protocol.h, formats and bind
// flags those of virgl_hw.h, state encodings those of Gallium's p_defines.h.
package virglcmd

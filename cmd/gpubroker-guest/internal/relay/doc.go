// Package relay carries one Wayland client of the guest to the host and back. It
// reads both directions by the protocol's tables, passes whole messages on as they
// are, and puts items (resource ids, bytes, pipes) where there were descriptors.
//
// What only the guest can do ends here: the content of wl_shm buffers
// (package shm), and wp_linux_drm_syncobj_v1, whose fences cannot leave the guest.
//
// Object ids pass through unchanged. Objects that end here keep the ids that the
// client gave them and the host never sees those.
package relay

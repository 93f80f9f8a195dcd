// Package drm is what the guest's end needs of Linux' virtio-gpu driver: to learn
// the resource id of a client's dma-buf, to make host memory that a client's pixels
// are copied into, and to talk to the broker in a cross-domain context. The requests
// and structs are those of include/uapi/drm/virtgpu_drm.h and drm.h.
package drm

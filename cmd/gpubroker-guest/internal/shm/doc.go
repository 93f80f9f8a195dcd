// Package shm brings the pixels of wl_shm buffers to the host. Memory is shared per
// buffer and never per pool: real clients make pools of 512 MiB, put buffers at odd
// offsets, resize while they use them, and punch holes.
//
// There are three ways, best first, and [Store.NewBuffer] takes the first that works:
//
//   - TierImport: the buffer's pages become a dma-buf (udmabuf) that a second
//     virtio-gpu device without 3D imports. The host reads the client's own pages.
//   - TierBlob: host memory is mapped here, and what changed is copied into it.
//   - TierStream: what changed is sent with the client's messages.
package shm

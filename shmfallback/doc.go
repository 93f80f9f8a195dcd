// Package shmfallback holds what carries pixels where dma-bufs do not exist:
// buffers in sealed memfds ([Alloc]), swap chains of them ([Swapchain]), and the
// one family of functions that copies pixels and counts what it copied
// ([Meter]).
package shmfallback

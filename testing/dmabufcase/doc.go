// Package dmabufcase drives a running gpubroker as a guest would, shows what the
// guest draws in a weston, and compares weston's own picture with one that the
// CPU painted. The same cases run where real dma-bufs exist and where they do not:
// the pixels have to be the same, only the tier differs.
//
// A [Stage] is a weston, a broker of its own and a fake guest; it counts frames,
// copied bytes, exports, descriptors and memory of every case.
package dmabufcase

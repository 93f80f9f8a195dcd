// Package soak makes and drops very many of everything through the fake guest, ends
// compositors under a guest that flips, and workers and compositors under a real
// guest that draws, and compares what a real gpubroker process holds before and after.
package soak

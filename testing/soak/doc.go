// Package soak makes and drops very many of everything through the fake guest, and
// ends compositors under a guest that flips, and compares what a real gpubroker
// process holds before and after.
package soak

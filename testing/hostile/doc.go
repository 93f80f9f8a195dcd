// Package hostile is a guest, and a QEMU, that mean harm: cases as data, each sent
// to a real gpubroker process by the fake guest, and a generator that mutates
// recorded traffic. After each case the broker must live, hold the descriptors that
// it held before, and serve the next good command, or have dropped this VM alone
// and serve the next.
package hostile

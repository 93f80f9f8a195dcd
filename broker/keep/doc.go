// Package keep is what a gpubroker that serves a VM (the worker) and the small process
// above it (broker/supervise) say to each other, so that the VM survives the worker.
//
// The worker gives what must outlive it to its keeper: named entries, each a few bytes
// and at most one descriptor. A worker that comes after one that died gets them back,
// with the connections of front-ends. What a worker is doing stands in a page that both
// map. The keeper understands none of the entries.
package keep

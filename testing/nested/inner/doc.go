// Package inner runs inside the guest that plays the host: a nested guest, emulated
// by an emulated machine, draws with virgl on gpubroker, and its pixels reach weston
// as real dma-bufs.
package inner

// EnvBinary names the environment variable with the gpubroker to run.
const EnvBinary = "GPUBROKER_NESTED_BINARY"

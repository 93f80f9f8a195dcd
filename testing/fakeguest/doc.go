// Package fakeguest is a guest without a VM: guest RAM in a memfd, a virtio
// driver for the control and the cursor queue, and a front-end that behaves as a
// chosen version of QEMU. It drives a back-end over its socket, as QEMU would.
//
// A [Guest] is not safe for concurrent use. In steady state, sending commands
// and waiting for their responses allocates nothing, so benchmarks can use it.
package fakeguest

// Package apps brings the clients of gpubroker-guest to whatever serves them: it
// listens where a VM's streams arrive, speaks the protocol of package link on them and
// hands each client on as a [proxy.Guest].
//
// Carriers, each optional:
//
//   - a unix socket, one connection a client, for containers and tests;
//   - vsock: an AF_VSOCK port of this host, or the unix socket that a VMM with hybrid
//     vsock (Firecracker, vhost-device-vsock) connects to when the guest connects to
//     the port;
//   - virtio-serial: a unix socket that QEMU's chardev connects to, with many clients
//     on the one port (link.Mux);
//   - [Service.ServeStream], for a stream that arrived in another way, such as within
//     a cross-domain context.
//
// One Service serves one VM: its limits are the VM's. Every client has goroutines of
// its own, so one that is slow, or whose compositor is, keeps none of the others back;
// what may pile up for it is bounded.
package apps

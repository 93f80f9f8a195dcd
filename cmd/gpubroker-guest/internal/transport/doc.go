// Package transport makes the streams of bytes that clients' links run over: in a
// cross-domain context of the GPU, over vsock, over a channel of a virtio-serial port,
// or over a unix socket.
package transport

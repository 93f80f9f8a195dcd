// Package crossdomain is the cross-domain context type of virtio-gpu (capset 5): a
// message channel between a program of the guest and the host, in which descriptors
// are named by numbers. docs/cross-domain.md has the protocol, byte by byte.
//
// A [Context] takes the commands of one guest context from the render thread and
// never makes it wait: what the guest sends goes into a bounded queue, what is for
// the guest is written by other goroutines, one message for each fence that the guest
// has waiting. The package knows no device, no renderer and no compositor; it asks
// for their help through [Device] and [Channels].
package crossdomain

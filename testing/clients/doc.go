// Package clients runs Wayland clients that nobody wrote for gpubroker, and tells
// whether what they show is the same directly on a compositor and through
// gpubroker: from this machine over a unix socket, and from guests over both of
// their transports.
//
// What is run is data ([Cases]). Where it runs is a [Place], and what the
// compositor shows of it is a [Look]; two looks are compared as the case says.
package clients

// Package linkbench measures what carries a guest's Wayland client to the host's
// compositor: how long a commit takes from the one to the other, and what a frame costs
// in CPU time. gpubroker's two ends and waypipe's do the same work between the same
// client and the same compositor, over unix sockets of this machine.
package linkbench

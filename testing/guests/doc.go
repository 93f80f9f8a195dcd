// Package guests holds the tests of gpubroker with real guests in real QEMUs:
// what their consoles, compositors and cursors look like on the host, and what
// becomes of it all when machines and compositors stop, crash and come back.
//
// The tests need GPUBROKER_VM=1 and the lab root (make lab).
package guests

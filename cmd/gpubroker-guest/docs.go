//go:build docs

package main

import (
	"github.com/spf13/cobra"

	"github.com/gpubroker/gpubroker/cmd/internal/manual"
)

// The command that writes the manual pages is only in builds for packagers
// (packaging/deb/build.sh).
func init() {
	extraCommands = append(extraCommands, func() *cobra.Command { return manual.Command("gpubroker-guest "+version(), pages) })
}

var (
	exits = []manual.Entry{
		{"0", "It ended in good order."},
		{"1", "It could not start, or ended with an error. The log, on the standard error, says why."},
		{"2", "The command line is wrong."},
	}
	variables = []manual.Entry{
		{"XDG_RUNTIME_DIR", "The folder of the display, and of everything else here that has no path."},
		{"LISTEN_PID, LISTEN_FDS", "systemd's: the socket to listen on."},
	}
	files = []manual.Entry{
		{"$XDG_RUNTIME_DIR/wayland-gpubroker", "The Wayland display, if --display says nothing else."},
		{"/dev/dri/renderD*", "The guest's GPU: what programs draw on it goes to the host without a copy."},
		{"/dev/virtio-ports/org.gpubroker.0", "The virtio-serial port, for --transport serial."},
		{"/dev/udmabuf", "Makes dma-bufs of shared memory, which then needs no copy."},
		{"/usr/lib/systemd/user/gpubroker-guest.socket, gpubroker-guest.service", "Units that start it with its first client: systemctl --user enable --now gpubroker-guest.socket."},
		{"~/.config/gpubroker-guest.conf", "Their options: GPUBROKER_GUEST_OPTIONS=\"--transport vsock\"."},
	}
	see = []string{"gpubroker(1)", "Xwayland(1)", "/usr/share/doc/gpubroker-guest/guest.md"}
)

// pages is what the pages say and --help does not.
var pages = map[string]manual.Extra{
	"gpubroker-guest":        {Exit: exits, Environment: variables, Files: files, SeeAlso: see},
	"gpubroker-guest serve":  {Exit: exits, Environment: variables, Files: files, SeeAlso: see},
	"gpubroker-guest status": {Exit: exits, Environment: variables[:1], Files: files[:1]},
	"gpubroker-guest run": {
		Exit: []manual.Entry{
			{"N", "What the program ended with."},
			{"1", "It could not be started, or the display could not."},
			{"2", "The command line is wrong."},
		},
		Environment: []manual.Entry{
			variables[0],
			{"WAYLAND_DISPLAY, DISPLAY", "Set for the program: the display, and with --x11 the X server."},
		},
		Files: files[:4], SeeAlso: see,
	},
}

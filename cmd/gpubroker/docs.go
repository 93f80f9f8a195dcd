//go:build docs

package main

import (
	"github.com/spf13/cobra"

	"github.com/gpubroker/gpubroker/cmd/internal/manual"
)

// The command that writes the manual pages is only in builds for packagers
// (packaging/deb/build.sh).
func init() {
	extraCommands = append(extraCommands, func() *cobra.Command { return manual.Command("gpubroker "+version(), pages) })
}

var (
	manualFolder = "/usr/share/doc/gpubroker/"

	exits = []manual.Entry{
		{"0", "It ended in good order: by SIGINT, SIGTERM, or, with --fd, because QEMU left."},
		{"1", "It could not start, or ended with an error. The log, on the standard error, says why."},
		{"2", "The command line is wrong."},
	}
	// asked are the codes of commands that ask a running gpubroker.
	asked = []manual.Entry{
		{"0", "The broker answered."},
		{"1", "It could not be reached, or has no answer."},
		{"2", "The command line is wrong, or it does not say which of several brokers is meant."},
	}
	control = manual.Entry{"$XDG_RUNTIME_DIR/gpubroker/NAME.control", "The socket for ls, top and shot of a broker that systemd started. They find it by themselves if it is the only one."}

	variables = []manual.Entry{
		{"WAYLAND_DISPLAY, XDG_RUNTIME_DIR", "Which compositor shows the guest, without --wayland-display."},
		{"LIBGL_ALWAYS_SOFTWARE", "Mesa's: with 1 it renders without a GPU. Other variables of Mesa work, too."},
		{"LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, NOTIFY_SOCKET", "systemd's: sockets named gpu, input and touch, and who hears that it is ready."},
	}
	files = []manual.Entry{
		{"/dev/dri/renderD*", "The render nodes. Without one it draws in software."},
		{"/dev/udmabuf", "Makes dma-bufs of guest memory."},
		{"/usr/share/qemu/vhost-user/40-gpubroker.json", "Tells libvirt that this program exists."},
		{"/usr/lib/systemd/user/gpubroker@.socket, gpubroker-input@.socket, gpubroker@.service", "Units for one VM each: systemctl --user enable --now gpubroker@NAME.socket."},
		{"$XDG_RUNTIME_DIR/gpubroker/NAME.sock, NAME.input", "The sockets of these units, for QEMU."},
		{"~/.config/gpubroker/NAME.conf", "Options of one VM: GPUBROKER_OPTIONS=\"--heads 2\"."},
		control,
	}
)

// pages is what the pages say and --help does not.
var pages = map[string]manual.Extra{
	"gpubroker": {
		Exit: exits, Environment: variables, Files: files,
		SeeAlso: []string{"gpubroker-guest(1)", "systemd.socket(5)", manualFolder + "README.md", manualFolder + "packaging.md"},
	},
	"gpubroker serve": {
		Exit: exits, Environment: variables, Files: files,
		SeeAlso: []string{"gpubroker-guest(1)", "systemd.socket(5)", manualFolder + "security.md", manualFolder + "metrics.md"},
	},
	"gpubroker smoke": {
		Exit: []manual.Entry{
			{"0", "This machine is usable."},
			{"1", "It is, but something is missing, or the test was interrupted."},
			{"2", "gpubroker cannot be used here, or the command line is wrong."},
		},
		Environment: variables[:2],
		Files:       files[:2],
		SeeAlso:     []string{manualFolder + "smoke.md"},
	},
	"gpubroker replay": {
		Exit: []manual.Entry{
			{"0", "Every answer is the same as in the recording."},
			{"1", "Some are not."},
			{"2", "The file cannot be read or played, or the command line is wrong."},
		},
		Environment: variables[1:2],
		Files:       files[:1],
	},
	"gpubroker ls":   {Exit: asked, Files: []manual.Entry{control}},
	"gpubroker top":  {Exit: asked, Files: []manual.Entry{control}},
	"gpubroker shot": {Exit: asked, Files: []manual.Entry{control}},
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/display"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/serve"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/transport"
)

// Exit codes; run passes the command's own on.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is an error of the command line.
type usageError struct{ error }

// exitError is the exit code of the command that run started.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("the command ended with code %d", int(e)) }

// options are those of every command.
type options struct {
	display   string
	transport string
	level     string
	format    string
	logs      io.Writer
}

func (o *options) register(f *pflag.FlagSet) {
	f.StringVar(&o.display, "display", display.DefaultName, "`NAME` of the Wayland display, in XDG_RUNTIME_DIR, or a path")
	f.StringVar(&o.transport, "transport", "auto", "`WAY` to the host: "+transport.Usage)
	f.StringVar(&o.level, "log-level", "info", "`LEVEL` of the log: debug, info, warn or error")
	f.StringVar(&o.format, "log-format", "text", "`FORMAT` of the log: text or json")
}

func (o *options) log() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.level)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level %q: want debug, info, warn or error", o.level)}
	}
	opts := &slog.HandlerOptions{Level: level}
	switch o.format {
	case "text":
		return slog.New(slog.NewTextHandler(o.logs, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(o.logs, opts)), nil
	}
	return nil, usageError{fmt.Errorf("--log-format %q: want text or json", o.format)}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var exit exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return int(exit)
	}
	fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), err)
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "Try '%s --help'.\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailed
}

// extraCommands are those of special builds.
var extraCommands []func() *cobra.Command

func newRoot(logs io.Writer) *cobra.Command {
	o := &options{logs: logs}
	root := &cobra.Command{
		Use:   "gpubroker-guest",
		Short: "Show windows of this virtual machine on the host's desktop",
		Long: `gpubroker-guest is a Wayland display inside a virtual machine. Its clients' windows
appear on the desktop of the host, where gpubroker shows them: what the GPU drew
without copying, shared memory without copying where the machine has an import
device, else as copies of what changed.

The way to the host is the first of these that works, unless --transport says else:

  cross-domain   a context of the GPU (needs QEMU's vhost-user-test-device-pci)
  vsock          a vsock device, port 4673602 of the host
  serial         a virtio-serial port with the name org.gpubroker.0

unix:PATH is a socket on this machine, for tests.`,
		Example: `  gpubroker-guest run weston-terminal
  gpubroker-guest run --x11 xterm
  gpubroker-guest serve --display wayland-1 &
  gpubroker-guest status`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	o.register(root.PersistentFlags())
	for _, f := range extraCommands {
		root.AddCommand(f())
	}
	root.AddCommand(newServe(o), newRun(o), newStatus(o), newVersion())
	return root
}

func newStatus(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what the display's server does: transport, clients, frames and copies by tier",
		Example: `  gpubroker-guest status
  gpubroker-guest status --json | jq .transport`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := display.Path(o.display)
			if err != nil {
				return err
			}
			st, err := serve.ReadStatus(cmd.Context(), path)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(st)
			}
			return st.Write(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

// release is set by packagers: -ldflags "-X main.release=1.2.3".
var release = ""

func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "gpubroker-guest", version())
			return err
		},
	}
}

// noArgs is cobra.NoArgs as an error of the command line.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usageError{err}
	}
	return nil
}

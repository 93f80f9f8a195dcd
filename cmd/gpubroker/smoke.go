package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpubroker/gpubroker/broker/smoke"
)

// exitCode is the code of a command that has said everything already.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func newSmoke() *cobra.Command {
	o := smoke.Options{Version: version()}
	var asJSON, verbose, probe bool
	cmd := &cobra.Command{
		Use:   "smoke",
		Short: "Find out what this machine can do for guests",
		Long: `smoke tries everything that gpubroker needs, each in a process of its own: it allocates,
draws, exports, maps and compares pixels, runs a tiny guest in KVM, asks the compositor
and QEMU. Each row says what was seen; one that is not ok also says why, and which
command or package mends it.

States: ok; degraded (gpubroker works without, but not as well); failed; skipped.
The exit code is 0 if this machine is usable, 1 if something is missing, 2 if
gpubroker cannot be used.`,
		Example: `  gpubroker smoke
  gpubroker smoke --render-node /dev/dri/renderD129 --verbose
  gpubroker smoke --json | jq '.rows[] | select(.state != "ok")'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if probe {
				return smoke.ServeChild(cmd.Context(), cmd.InOrStdin())
			}
			if o.Timeout <= 0 {
				return usageError{fmt.Errorf("--timeout %v: want a time above 0", o.Timeout)}
			}
			o.Child = smoke.SelfChild("smoke", "--probe")
			rep := smoke.Run(cmd.Context(), o)
			if err := cmd.Context().Err(); err != nil {
				return fmt.Errorf("interrupted: %w", err)
			}
			var err error
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = enc.Encode(rep)
			} else {
				err = rep.Print(cmd.OutOrStdout(), verbose)
			}
			if err == nil && rep.Code != 0 {
				err = exitCode(rep.Code)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.RenderNode, "render-node", "r", "", "DRM node `PATH` to try (default: the first GPU's, and every node without one)")
	f.StringVar(&o.Wayland, "wayland-display", "", "compositor's socket, a `NAME` or path (default $WAYLAND_DISPLAY)")
	f.StringVar(&o.QEMU, "qemu", "", "QEMU's program `FILE` (default: qemu-system-… of this machine in $PATH)")
	f.DurationVar(&o.Timeout, "timeout", time.Minute, "`TIME` that each probe may take")
	f.BoolVar(&asJSON, "json", false, "write JSON")
	f.BoolVarP(&verbose, "verbose", "v", false, "list the parts of each check, such as every format")
	f.BoolVar(&probe, "probe", false, "run the probe on the standard input")
	if err := f.MarkHidden("probe"); err != nil {
		panic(err) // defined above
	}
	return cmd
}

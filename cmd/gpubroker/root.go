package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"
)

// Exit codes. QEMU's conventions for back-ends ask for non-zero, early, when a
// feature that was asked for cannot be provided.
const (
	exitOK     = 0
	exitFailed = 1 // could not start, or ended with an error
	exitUsage  = 2 // the command line is wrong
)

// usageError is an error of the command line.
type usageError struct{ error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if code, ok := err.(exitCode); ok {
		return int(code)
	}
	fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), err)
	if _, ok := err.(usageError); ok {
		fmt.Fprintf(stderr, "Try '%s --help'.\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailed
}

// extraCommands are those of special builds.
var extraCommands []func() *cobra.Command

func newRoot(logs io.Writer) *cobra.Command {
	var print bool
	o := &serveOptions{logs: logs}
	root := &cobra.Command{
		Use:   "gpubroker",
		Short: "The virtio-gpu device of a virtual machine, shown in your Wayland compositor",
		Long: `gpubroker is the virtio-gpu device of a QEMU guest (a vhost-user back-end). It runs
the guest's OpenGL through virglrenderer and hands finished pictures to the Wayland
compositor as dma-bufs, without copying them, or as shared memory where the
machine has no dma-bufs.

Called with --socket-path or --fd and no command it serves at once, as QEMU's
conventions for vhost-user back-ends say; 3D then needs --virgl.`,
		Example: `  gpubroker serve --socket-path /run/user/1000/gpu.sock
  qemu-system-x86_64 -machine q35,memory-backend=mem \
    -object memory-backend-memfd,id=mem,size=4G,share=on \
    -chardev socket,id=gpu,path=/run/user/1000/gpu.sock \
    -device vhost-user-gpu-pci,chardev=gpu -vga none -display none …`,
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if print {
				return printCapabilities(cmd.OutOrStdout())
			}
			if o.socket == "" && o.fd < 0 {
				return cmd.Help()
			}
			if o.virgl == "auto" {
				o.virgl = "off" // the conventions: only if --virgl is given
			}
			return serve(cmd.Context(), o)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.Flags().BoolVarP(&print, "print-capabilities", "c", false, "print what this back-end can do, as JSON, and exit")
	o.register(root.Flags())
	for _, f := range extraCommands {
		root.AddCommand(f())
	}
	root.AddCommand(newServe(logs), newSmoke(), newLs(), newTop(), newShot(), newReplay(logs), newVersion())
	return root
}

// printCapabilities answers --print-capabilities (QEMU docs/interop/vhost-user.json,
// VHostUserBackendCapabilitiesGPU). libvirt insists on a render node if that
// feature is listed, so it is listed only where there is one.
func printCapabilities(w io.Writer) error {
	caps := struct {
		Type     string   `json:"type"`
		Features []string `json:"features"`
	}{"gpu", []string{"virgl"}}
	if nodes, _ := filepath.Glob("/dev/dri/renderD*"); len(nodes) > 0 { // only a bad pattern fails
		caps.Features = []string{"render-node", "virgl"}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(caps)
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

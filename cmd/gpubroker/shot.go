package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gpubroker/gpubroker/broker"
)

func newShot() *cobra.Command {
	var c controlOption
	var out string
	var scanout, resource uint32
	cmd := &cobra.Command{
		Use:   "shot [--scanout N | --resource ID] -o FILE.png",
		Short: "Write a picture of a scanout or a resource of a running gpubroker",
		Long: `shot asks a running gpubroker (serve --control PATH) for the pixels that it holds, and
writes them as PNG. They are what the guest has drawn, whatever the compositor makes of
it; nobody has to look at the window. A scanout is opaque; a resource has the components
as they are stored, alpha too if its format has some.

The broker reads them back between two commands of the guest, which waits meanwhile: some
milliseconds.`,
		Example: `  gpubroker shot -o screen.png
  gpubroker shot --resource 12 -o - | display`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usageError{errors.New("want -o FILE.png, or -o - for the standard output")}
			}
			request := fmt.Sprintf("shot scanout %d", scanout)
			if cmd.Flags().Changed("resource") {
				if cmd.Flags().Changed("scanout") {
					return usageError{errors.New("want either --scanout N or --resource ID")}
				}
				request = fmt.Sprintf("shot resource %d", resource)
			}
			path, err := c.socket()
			if err != nil {
				return err
			}
			var s broker.Shot
			if err := broker.Ask(path, request, &s); err != nil {
				return err
			}
			if out == "-" {
				_, err := cmd.OutOrStdout().Write(s.PNG)
				return err
			}
			if err := writeFile(out, s.PNG); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %dx%d of resource %d (%s)\n", out, s.Width, s.Height, s.Resource, s.Format)
			return err
		},
	}
	c.register(cmd.Flags())
	f := cmd.Flags()
	f.StringVarP(&out, "output", "o", "", "the `FILE` to write, - for the standard output")
	f.Uint32Var(&scanout, "scanout", 0, "the scanout `N`")
	f.Uint32Var(&resource, "resource", 0, "the resource `ID` instead, see gpubroker ls")
	return cmd
}

// writeFile replaces a file whole, or leaves it as it was.
func writeFile(path string, body []byte) error {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0) // a pipe or /dev/null
		if err != nil {
			return err
		}
		_, err = f.Write(body)
		return errors.Join(err, f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

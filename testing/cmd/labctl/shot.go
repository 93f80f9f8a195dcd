package main

import (
	"fmt"
	"image/png"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpubroker/gpubroker/testing/lab"
)

func shotCommand() *cobra.Command {
	var opt lab.WestonOptions
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "shot [flags] OUT.png -- PROGRAM [ARG]...",
		Short: "Run a Wayland client of the root in a headless weston and take a screenshot",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := lab.Find()
			if err != nil {
				return err
			}
			opt.Log = os.Stderr
			weston, err := root.Weston(cmd.Context(), opt)
			if err != nil {
				return err
			}
			defer weston.Stop()
			if len(args) > 1 {
				client := weston.Client(cmd.Context(), args[1:]...)
				client.Stdout, client.Stderr = os.Stdout, os.Stderr
				if err := client.Start(); err != nil {
					return err
				}
				defer func() {
					_ = client.Process.Kill() // it may have ended by itself
					_ = client.Wait()
				}()
			}
			time.Sleep(wait)
			img, err := weston.Screenshot(cmd.Context())
			if err != nil {
				return err
			}
			f, err := os.Create(args[0])
			if err != nil {
				return err
			}
			if err := png.Encode(f, img); err != nil {
				f.Close()
				return err
			}
			fmt.Fprintln(os.Stderr, "labctl: wrote", args[0], img.Bounds().Size())
			return f.Close()
		},
	}
	cmd.Flags().StringVar(&opt.Renderer, "renderer", "pixman", "weston's renderer: pixman or gl")
	cmd.Flags().StringVar(&opt.Shell, "shell", "kiosk", "weston's shell: kiosk or desktop")
	cmd.Flags().IntVar(&opt.W, "width", 1280, "output width in pixels")
	cmd.Flags().IntVar(&opt.H, "height", 720, "output height in pixels")
	cmd.Flags().DurationVar(&wait, "wait", time.Second, "time to let the client draw")
	return cmd
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/display"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/serve"
)

func newRun(o *options) *cobra.Command {
	x11 := ""
	geometry := ""
	cmd := &cobra.Command{
		Use:   "run [OPTION]... COMMAND [ARGUMENT]...",
		Short: "Run a program whose windows appear on the host's desktop",
		Long: `Run a program with WAYLAND_DISPLAY set and DISPLAY unset. Where no server runs for
the display, this command is one until the program and all other clients have ended.
The exit code is the program's.

--x11 also starts an X server for the program: xwayland-satellite, which gives each X
window a window of its own, or with --x11=rootful Xwayland with all of them in one.`,
		Example: `  gpubroker-guest run foot
  gpubroker-guest run --x11 -- xterm -fs 14
  gpubroker-guest run --x11=rootful --geometry 1600x900 openbox`,
		DisableFlagsInUseLine: true, // options stand before the command
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("which command?")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if x11 != "" && x11 != "rootless" && x11 != "rootful" {
				return usageError{fmt.Errorf("--x11=%s: want rootless or rootful", x11)}
			}
			return o.run(cmd.Context(), args, x11, geometry)
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&x11, "x11", "", "start an X server, `KIND` rootless (if not said) or rootful")
	cmd.Flags().Lookup("x11").NoOptDefVal = "rootless"
	cmd.Flags().StringVar(&geometry, "geometry", "1280x720", "`SIZE` of the window of --x11=rootful")
	return cmd
}

// run starts what is missing and then the program.
func (o *options) run(ctx context.Context, argv []string, x11, geometry string) error {
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	path, stop, err := o.ensureServer(ctx)
	if err != nil {
		return err
	}
	err = o.child(ctx, program, argv, path, x11, geometry)
	return errors.Join(err, stop())
}

// child runs the program to its end.
func (o *options) child(ctx context.Context, program string, argv []string, path, x11, geometry string) error {
	env := environment(path)
	if x11 != "" {
		x, err := startX(ctx, env, x11, geometry, o.logs)
		if err != nil {
			return err
		}
		defer x.stop()
		env = environment(path, "DISPLAY="+x.display)
	}
	cmd := exec.CommandContext(ctx, program, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if code := exit.ExitCode(); code >= 0 {
			return exitError(code)
		}
		return fmt.Errorf("%s: %w", argv[0], err)
	}
	return err
}

// ensureServer makes sure that the display is served: by a server that runs, or by
// this process until stop, which waits for clients that are left.
func (o *options) ensureServer(ctx context.Context) (path string, stop func() error, err error) {
	if path, err = display.Path(o.display); err != nil {
		return "", nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return path, func() error { return nil }, nil
	}
	log, err := o.log()
	if err != nil {
		return "", nil, err
	}
	l, err := display.Listen(o.display)
	if err != nil {
		return "", nil, err
	}
	var s *serve.Server
	if s, err = o.server(ctx, log); err != nil {
		_ = l.Close()
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- serveDisplay(ctx, s, l, log) }()
	return path, func() error {
		idle := make(chan struct{})
		go func() { s.WaitIdle(); close(idle) }()
		select {
		case <-idle:
		case <-ctx.Done():
		}
		cancel()
		return <-done
	}, nil
}

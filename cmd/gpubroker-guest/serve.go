package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/display"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/serve"
	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/transport"
)

func newServe(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve the display until a signal ends it",
		Long: `Serve the display until SIGINT or SIGTERM. A socket that systemd listens at
(gpubroker-guest.socket) is taken instead of --display.

A client that cannot reach the host ends with an error; the next one tries anew, so
nothing has to be restarted when the host's side was.`,
		Example: `  gpubroker-guest serve &
  WAYLAND_DISPLAY=wayland-gpubroker foot
  gpubroker-guest serve --display wayland-1 --transport vsock`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := o.log()
			if err != nil {
				return err
			}
			l, err := display.FromSystemd()
			if err == nil && l == nil {
				l, err = display.Listen(o.display)
			}
			if err != nil {
				return err
			}
			s, err := o.server(cmd.Context(), log)
			if err != nil {
				_ = l.Close()
				return err
			}
			return serveDisplay(cmd.Context(), s, l, log)
		},
	}
}

// server opens the way to the host.
func (o *options) server(ctx context.Context, log *slog.Logger) (*serve.Server, error) {
	raiseLimit()
	nodes, err := drm.Nodes()
	if err != nil {
		log.Warn("a render node cannot be used", "why", err)
	}
	t, why, err := transport.Open(ctx, o.transport, nodes)
	if err != nil {
		return nil, err
	}
	log.Info("way to the host", "transport", t.Name())
	if why != nil {
		log.Info("no better way", "why", why)
	}
	return serve.New(t, why, nodes, log), nil
}

// serveDisplay serves until ctx ends.
func serveDisplay(ctx context.Context, s *serve.Server, l *display.Listener, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	path := l.Path()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.ServeStatus(ctx, path); err != nil {
			log.Warn("no status", "why", err)
		}
	}()
	log.Info("serving", "display", path)
	err := s.Serve(ctx, l)
	cancel()
	<-done
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	return err
}

// raiseLimit allows as many descriptors as the system does: each client takes some,
// and each buffer that clients share.
func raiseLimit() {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil && l.Cur < l.Max {
		l.Cur = l.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
	}
}

// environment returns the environment for programs that are to use a display.
func environment(displayPath string, more ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "WAYLAND_DISPLAY", "WAYLAND_SOCKET", "DISPLAY", "XAUTHORITY":
		default:
			env = append(env, kv)
		}
	}
	env = append(env, fmt.Sprintf("WAYLAND_DISPLAY=%s", displayPath), "XDG_SESSION_TYPE=wayland")
	return append(env, more...)
}

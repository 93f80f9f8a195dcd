package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/supervise"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// superviseOptions are those of a VM that survives the process that renders.
type superviseOptions struct {
	on         bool
	asked      func() bool // on was given
	sandbox    bool
	watchdog   time.Duration
	quarantine int
	worker     int    // descriptor of the supervisor's socket: this is a worker
	connector  int    // descriptor of who connects for a worker in a sandbox
	folder     string // of a worker in a sandbox, where it makes sockets for the compositor
}

func (o *superviseOptions) register(f *pflag.FlagSet) {
	f.BoolVar(&o.on, "supervise", true, "render in a process of its own, and start another when it dies: the VM goes on")
	flag := f.Lookup("supervise")
	o.asked = func() bool { return flag.Changed }
	f.BoolVar(&o.sandbox, "sandbox", false, "with --supervise: take from that process files, programs and networks that it does not need (landlock, seccomp)")
	f.DurationVar(&o.watchdog, "watchdog", 30*time.Second, "with --supervise: `TIME` after which one command that does not end ends the process, ten times as long if it computes (0: never)")
	f.IntVar(&o.quarantine, "quarantine", 3, "with --supervise: `N` deaths within a minute turn 3D off for a VM, as many again drop it (0: never)")
	f.IntVar(&o.worker, "worker-fd", -1, "be a supervisor's worker")
	f.IntVar(&o.connector, "connector-fd", -1, "the supervisor's connector")
	f.StringVar(&o.folder, "worker-folder", "", "the worker's folder")
	for _, name := range []string{"worker-fd", "connector-fd", "worker-folder"} {
		_ = f.MarkHidden(name) // it exists
	}
}

// supervised serves in workers.
func supervised(ctx context.Context, cfg broker.Config, o *serveOptions) (err error) {
	log := cfg.Log.Named("supervisor")
	recording, err := o.record.open()
	if err == nil && o.supervise.sandbox && cfg.Apps != nil {
		// The workers may make no folders where the compositor's socket is.
		o.supervise.folder, err = os.MkdirTemp(os.Getenv("XDG_RUNTIME_DIR"), "gpubroker-")
		defer func() { _ = os.RemoveAll(o.supervise.folder) }()
	}
	if err != nil {
		if cfg.FD != nil {
			_ = cfg.FD.Close()
		}
		cfg.Activated.Close()
		return err
	}
	if recording != nil {
		defer func() { _ = recording.Close() }() // if there was no worker to give it to
	}
	fronts, err := fronts(&cfg)
	if err != nil {
		return err
	}
	s, err := supervise.New(supervise.Config{
		Fronts: fronts, Command: workerCommand(cfg, o, recording), Watchdog: o.supervise.watchdog, Quarantine: o.supervise.quarantine,
		OnReady: func() { notify("READY=1") }, Log: log,
	})
	if err != nil {
		return err
	}
	log.Info("gpubroker", zap.String("version", cfg.Version))
	err = s.Run(ctx)
	notify("STOPPING=1")
	_ = log.Sync() // fails on terminals and pipes
	var start *supervise.StartError
	if errors.As(err, &start) && start.Code > 0 {
		return exitCode(start.Code) // the worker said why
	}
	return err
}

// fronts listens for every device that the configuration has.
func fronts(cfg *broker.Config) (out map[keep.Role]supervise.Front, err error) {
	out = map[keep.Role]supervise.Front{}
	defer func() {
		cfg.Activated.Close()
		if err == nil {
			return
		}
		for _, f := range out {
			if f.Listener != nil {
				_ = f.Listener.Close()
			}
		}
	}()
	imports := ""
	if cfg.Apps != nil {
		imports = cfg.Apps.ImportSocket
	}
	a := &cfg.Activated
	for _, d := range []struct {
		role keep.Role
		path string
		fd   **dmabuf.FD
	}{{keep.GPU, cfg.Socket, &a.GPU}, {keep.Input, cfg.InputSocket, &a.Input}, {keep.Touch, cfg.TouchSocket, &a.Touch}, {keep.Import, imports, nil}} {
		var l *vhostuser.Listener
		switch {
		case d.fd != nil && *d.fd != nil:
			if d.path != "" {
				return out, fmt.Errorf("want either %s or systemd's socket named %s", map[keep.Role]string{
					keep.GPU: "--socket-path", keep.Input: "--input-socket", keep.Touch: "--touch-socket"}[d.role], d.role)
			}
			l, err = vhostuser.ListenFD(*d.fd)
			*d.fd = nil
		case d.path != "":
			l, err = vhostuser.Listen(d.path)
		default:
			continue
		}
		if err != nil {
			return out, err
		}
		out[d.role] = supervise.Front{Listener: l}
	}
	if cfg.FD != nil {
		conn, err := vhostuser.FromFD(cfg.FD)
		cfg.FD = nil
		if err != nil {
			return out, err
		}
		out[keep.GPU] = supervise.Front{Conn: conn}
	}
	return out, nil
}

// workerCommand runs this program again with the same options. The first worker gets the
// file of the recording: what a later one does begins with a guest in the middle of its
// work, and could not be played.
func workerCommand(cfg broker.Config, o *serveOptions, recording *os.File) func() *exec.Cmd {
	args := append(slices.Clone(os.Args[1:]), "--worker-fd=3")
	if o.virgl != "" {
		args = append(args, "--virgl="+o.virgl) // the default depends on how it was called
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET=") })
	return func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", args...)
		cmd.Args[0] = os.Args[0]
		cmd.Env, cmd.Stdout, cmd.Stderr = env, os.Stdout, o.logs
		if recording != nil {
			cmd.ExtraFiles = []*os.File{recording} // follows the socket
			cmd.Args = append(cmd.Args, "--record-fd=4")
			recording = nil
		}
		if o.supervise.sandbox {
			cmd.Args = append(cmd.Args, "--worker-folder="+o.supervise.folder)
			if err := giveConnector(cmd, reach(cfg, o)); err != nil {
				cfg.Log.Error("the worker will not reach a compositor", zap.Error(err))
			}
		}
		return cmd
	}
}

// endTime is what a worker has to end without its supervisor.
const endTime = 5 * time.Second

// adopt makes this process a worker. The context ends with the supervisor; end lets go
// of everything.
func adopt(ctx context.Context, fd int) (w *keep.Worker, _ context.Context, end func(), err error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, nil, nil, usageError{fmt.Errorf("--worker-fd %d: %w", fd, err)}
	}
	_ = os.WriteFile("/proc/self/comm", []byte("gpubroker"), 0) // not the "exe" that it was started as
	if w, err = keep.Adopt(dmabuf.NewFD(fd, "supervisor")); err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-w.Gone():
			cancel()
			time.AfterFunc(endTime, func() { os.Exit(exitFailed) }) // the render thread may hang
		case <-ctx.Done():
		}
	}()
	return w, ctx, func() {
		cancel()
		_ = w.Close()
	}, nil
}

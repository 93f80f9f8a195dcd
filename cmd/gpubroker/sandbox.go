package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/apps"
	"github.com/gpubroker/gpubroker/broker/confine"
	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/unixsock"
	"github.com/gpubroker/gpubroker/broker/wayland"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// confinedEnv says to a worker that it is in its sandbox.
const confinedEnv = "GPUBROKER_CONFINED"

// confined executes a worker again in its sandbox, if it is to be in one and is not; then
// it closes the sandbox. It comes before the first library is loaded.
func confined(cfg broker.Config, o *serveOptions) error {
	if !o.supervise.sandbox {
		return nil
	}
	p := policy(cfg, o)
	missing, err := confine.Missing()
	if err != nil {
		return fmt.Errorf("--sandbox: %w", err)
	}
	if os.Getenv(confinedEnv) != "" {
		if len(missing) > 0 {
			cfg.Log.Named("sandbox").Warn("this kernel does not take everything from the renderer", zap.Strings("left", missing))
		}
		if err := o.supervise.takeConnector(); err != nil {
			return err
		}
		return confine.Filter(p)
	}
	// Mesa's cache of shaders is a file that the next worker, and others, would trust.
	env := append(slices.Clone(os.Environ()), confinedEnv+"=1", "MESA_SHADER_CACHE_DISABLE=true")
	return confine.Exec(p, os.Args, env)
}

// policy is what a worker with these options needs.
func policy(cfg broker.Config, o *serveOptions) confine.Policy {
	p := confine.Default()
	for _, path := range ownSockets(cfg, o) {
		p.Sockets = append(p.Sockets, filepath.Dir(path))
	}
	if o.supervise.folder != "" {
		p.Folders = append(p.Folders, o.supervise.folder)
	}
	if o.apps.policy != "" {
		p.Read = append(p.Read, o.apps.policy)
	}
	if o.node != "" {
		p.Devices = append(p.Devices, o.node)
	}
	p.Bind = cfg.Metrics != "" && !strings.HasPrefix(cfg.Metrics, "unix:")
	p.VSock = o.apps.vsock != "" && !strings.HasPrefix(o.apps.vsock, "unix:")
	return p
}

// ownSockets are the paths that a worker with these options listens on.
func ownSockets(cfg broker.Config, o *serveOptions) (paths []string) {
	add := func(path string) {
		if path != "" {
			paths = append(paths, path)
		}
	}
	for _, path := range []string{cfg.Control, o.vtest, o.apps.socket, o.apps.serial} {
		add(path)
	}
	if path, ok := strings.CutPrefix(cfg.Metrics, "unix:"); ok {
		add(path)
	}
	if v, err := apps.ParseVSock(o.apps.vsock); err == nil && v.Path != "" {
		add(fmt.Sprintf("%s_%d", v.Path, v.Port))
	}
	return paths
}

// reach says how far a worker with these options may reach: to the compositors.
func reach(cfg broker.Config, o *serveOptions) func(path string) keep.Reach {
	to := map[string]keep.Reach{}
	for _, path := range ownSockets(cfg, o) {
		to[path] = keep.Answer
	}
	displays := []string{cfg.WaylandDisplay}
	if cfg.Apps != nil {
		displays = append(displays, cfg.Apps.Display)
	}
	for _, name := range displays {
		if path, err := wayland.SocketPath(name); err == nil {
			to[path] = keep.Connection
		}
	}
	return func(path string) keep.Reach {
		// What the worker made there itself, for the compositor to listen on.
		if folder := o.supervise.folder; folder != "" && strings.HasPrefix(path, folder+"/") && filepath.Clean(path) == path {
			return keep.Connection
		}
		return to[path]
	}
}

// giveConnector gives a worker that will be in a sandbox somebody who connects for it.
func giveConnector(cmd *exec.Cmd, reach func(path string) keep.Reach) error {
	ours, theirs, err := keep.Pair()
	if err != nil {
		return err
	}
	go keep.ServeConnector(ours, reach) // ends with the worker
	cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(theirs.Disown()), "connector"))
	cmd.Args = append(cmd.Args, fmt.Sprintf("--connector-fd=%d", 3+len(cmd.ExtraFiles))) // the socket is 3
	return nil
}

// takeConnector uses it.
func (o *superviseOptions) takeConnector() error {
	if _, err := unix.FcntlInt(uintptr(o.connector), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return usageError{fmt.Errorf("--connector-fd %d: %w", o.connector, err)}
	}
	unixsock.SetConnector(keep.Connector(dmabuf.NewFD(o.connector, "connector")))
	return nil
}

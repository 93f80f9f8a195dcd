package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/confine"
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
	missing, err := confine.Missing(p)
	if err != nil {
		return fmt.Errorf("--sandbox: %w", err)
	}
	if os.Getenv(confinedEnv) != "" {
		if len(missing) > 0 {
			cfg.Log.Named("sandbox").Warn("this kernel does not take everything from the renderer", zap.Strings("left", missing))
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
	for _, path := range []string{cfg.Control, strings.TrimPrefix(cfg.Metrics, "unix:"), o.vtest, o.apps.socket, o.apps.serial, strings.TrimPrefix(o.apps.vsock, "unix:")} {
		if strings.Contains(path, "/") {
			p.Sockets = append(p.Sockets, filepath.Dir(path))
		}
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

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/confine"
)

// confinedEnv says to a worker that it is in its sandbox.
const confinedEnv = "GPUBROKER_CONFINED"

// confined executes a worker again in its sandbox, if it is to be in one and is not. It
// comes before the first library is loaded.
func confined(cfg broker.Config, o *serveOptions) error {
	if !o.supervise.sandbox || os.Getenv(confinedEnv) != "" {
		return nil
	}
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
	// Mesa's cache of shaders is a file that the next worker, and others, would trust.
	env := append(slices.Clone(os.Environ()), confinedEnv+"=1", "MESA_SHADER_CACHE_DISABLE=true")
	return confine.Exec(p, os.Args, env)
}

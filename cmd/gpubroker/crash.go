//go:build crashtest

package main

import (
	"os"
	"strconv"
	"strings"

	"github.com/ebitengine/purego"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/virgl"
)

// In builds for tests of the supervisor, GPUBROKER_CRASH=NAME:N,… makes the renderer
// follow a wild pointer at the N-th command stream of a context of that name: the first
// item in the first worker, the second in the next.

func init() {
	changeConfig = func(cfg *broker.Config) {
		if cfg.Keep == nil || cfg.Keep.History().Quarantine {
			return
		}
		deaths := 0
		for _, n := range cfg.Keep.History().Restarts {
			deaths += int(n)
		}
		items := strings.Split(os.Getenv("GPUBROKER_CRASH"), ",")
		if deaths >= len(items) {
			return
		}
		name, count, _ := strings.Cut(items[deaths], ":")
		n, err := strconv.Atoi(count)
		if err != nil {
			return
		}
		log := cfg.Log.Named("virgl")
		cfg.Renderer = func(onFence virgl.Fences) (virgl.Renderer, error) {
			r, err := virgl.New(virgl.Config{Log: log, OnFence: onFence})
			return &crasher{Renderer: r, name: name, left: n, contexts: map[uint32]bool{}}, err
		}
	}
}

// crasher is a renderer that crashes.
type crasher struct {
	virgl.Renderer
	name     string
	left     int
	contexts map[uint32]bool // that have the name
}

func (c *crasher) CreateContext(id, capset uint32, name string) error {
	c.contexts[id] = name == c.name
	return c.Renderer.CreateContext(id, capset, name)
}

func (c *crasher) Submit(id uint32, stream []byte) error {
	if c.contexts[id] {
		if c.left--; c.left == 0 {
			crash()
		}
	}
	return c.Renderer.Submit(id, stream)
}

// crash writes to address 16 in C.
func crash() {
	libc, err := purego.Dlopen("libc.so.6", purego.RTLD_NOW)
	if err != nil {
		panic(err)
	}
	memset, err := purego.Dlsym(libc, "memset")
	if err != nil {
		panic(err)
	}
	purego.SyscallN(memset, 16, 1, 64)
}

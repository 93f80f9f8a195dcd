package main

import (
	"fmt"
	"time"

	"github.com/gpubroker/gpubroker/broker/vtest"
	"github.com/gpubroker/gpubroker/broker/vtest/vtesttest"
	"github.com/gpubroker/gpubroker/testing/virpipe"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// frames sends what Mesa sends for a frame, as fast as it is answered: the drawing, the
// resource that is its fence, the read-back, the wait. With so few pixels it measures what
// lies between a client and the renderer.
func frames(s *virpipe.Server, seconds float64) (scene virpipe.Scene, err error) {
	c, err := vtesttest.Dial(s.Socket, "frames", 2)
	if err != nil {
		return scene, err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Caps(2); err != nil {
		return scene, err
	}
	const size = 64
	target, err := c.Texture(size, size)
	if err != nil {
		return scene, err
	}
	defer target.Close()
	var b virglcmd.Builder
	b.CreateSubCtx(1)
	b.SetSubCtx(1)
	b.CreateSurface(10, target.Handle, virglcmd.FormatB8G8R8A8, 0, 0)
	b.SetFramebuffer(10)
	if err := c.Submit(b.Bytes()); err != nil {
		return scene, err
	}
	n := 0
	start := time.Now()
	for ; time.Since(start).Seconds() < seconds; n++ {
		shade := byte(n)
		b.Reset()
		b.SetSubCtx(1)
		b.Clear(virglcmd.ClearColor0, [4]float32{float32(shade) / 255, 0, 0, 1}, 0, 0)
		if err := c.Submit(b.Bytes()); err != nil {
			return scene, err
		}
		fence, err := c.Create(vtest.Create{Format: virglcmd.FormatR8, Bind: bindCustom, Width: 8, Height: 1, Depth: 1, DataSize: 8})
		if err != nil {
			return scene, err
		}
		fence.Close()
		px, err := c.Read(target, 0, 0, size, size)
		if err != nil {
			return scene, err
		}
		if px[2] != shade {
			return scene, fmt.Errorf("frame %d is %d, want %d", n, px[2], shade)
		}
		if err := c.Unref(fence.Handle); err != nil {
			return scene, err
		}
	}
	return virpipe.Scene{Name: "frames of 64x64 without a driver", FPS: float64(n) / time.Since(start).Seconds()}, nil
}

const bindCustom = 1 << 17 // VIRGL_BIND_CUSTOM

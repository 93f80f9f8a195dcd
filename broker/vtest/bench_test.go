package vtest_test

import (
	"testing"

	"github.com/gpubroker/gpubroker/broker/vtest"
	"github.com/gpubroker/gpubroker/broker/vtest/vtesttest"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// BenchmarkFrame is a frame of 64x64 as Mesa sends it, with libvirglrenderer: the drawing,
// the resource that is its fence, the read-back, the wait.
func BenchmarkFrame(b *testing.B) {
	path, _ := serveReal(b)
	c := must(vtesttest.Dial(path, "bench", 2))(b)
	defer func() { _ = c.Close() }()
	target := must(c.Texture(64, 64))(b)
	defer target.Close()
	var cmds virglcmd.Builder
	cmds.CreateSubCtx(1)
	cmds.SetSubCtx(1)
	cmds.CreateSurface(10, target.Handle, virglcmd.FormatB8G8R8A8, 0, 0)
	cmds.SetFramebuffer(10)
	if err := c.Submit(cmds.Bytes()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		cmds.Reset()
		cmds.SetSubCtx(1)
		cmds.Clear(virglcmd.ClearColor0, [4]float32{1, 0, 0, 1}, 0, 0)
		if err := c.Submit(cmds.Bytes()); err != nil {
			b.Fatal(err)
		}
		fence := must(c.Create(vtest.Create{Format: virglcmd.FormatR8, Bind: 1 << 17, Width: 8, Height: 1, Depth: 1, DataSize: 8}))(b)
		fence.Close()
		_ = must(c.Read(target, 0, 0, 64, 64))(b)
		if err := c.Unref(fence.Handle); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBusyWait is the shortest question and answer.
func BenchmarkBusyWait(b *testing.B) {
	path, _ := serveReal(b)
	c := must(vtesttest.Dial(path, "bench", 2))(b)
	defer func() { _ = c.Close() }()
	for b.Loop() {
		_ = must(c.Busy(0, true))(b)
	}
}

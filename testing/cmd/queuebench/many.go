package main

import (
	"context"
	"fmt"
	"time"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// How many resources and contexts "many" are, and how many there are otherwise.
const (
	manyResources = 10_000
	manyContexts  = 64
	fewResources  = 16
	fewContexts   = 2

	firstTexture = 20_000
	side         = 16 // of each picture, in pixels
)

// The columns of this part.
const (
	few  = "few"
	many = "many"
	all  = "all of many"
)

// measureMany measures the same commands on the same resources and contexts, with few and
// with many others in existence; and then on all of them.
func measureMany(ctx context.Context, l lineup, o options, rep *Report) error {
	m, err := l.boot(withGL)
	if err != nil {
		return err
	}
	defer m.quit()
	page, err := m.Pages.Scattered(side * side * 4)
	if err != nil {
		return err
	}
	p := population{machine: m, attach: func(id uint32) []byte { return attach(id, page) }}
	if err := p.grow(0, fewResources, 0, fewContexts); err != nil {
		return m.proc.explain(err)
	}
	for round := range min(o.rounds, 3) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := p.measure(few, fewResources, fewContexts, o, rep); err != nil {
			return err
		}
		begun := time.Now()
		if err := p.grow(fewResources, manyResources, fewContexts, manyContexts); err != nil {
			return m.proc.explain(err)
		}
		fmt.Printf("round %d of many: made in %.1f s\n", round+1, time.Since(begun).Seconds())
		mem, err := m.proc.memory()
		if err != nil {
			return err
		}
		rep.add("resident memory with 10000 resources, 64 contexts", "MiB", many, float64(mem.RSS)/1024)
		if err := p.measure(many, fewResources, fewContexts, o, rep); err != nil {
			return err
		}
		if err := p.measure(all, manyResources, manyContexts, o, rep); err != nil {
			return err
		}
		if err := p.shrink(fewResources, manyResources, fewContexts, manyContexts); err != nil {
			return m.proc.explain(err)
		}
	}
	return nil
}

// population is the resources 1 to n and the contexts 1 to n, each with a texture.
type population struct {
	*machine
	attach func(id uint32) []byte // the same page for everyone
}

func (p population) grow(fromR, toR, fromC, toC int) error {
	for id := uint32(fromR + 1); id <= uint32(toR); id++ {
		if err := p.machine.all(create2D(id, side, side), p.attach(id)); err != nil {
			return err
		}
	}
	for id := uint32(fromC + 1); id <= uint32(toC); id++ {
		t := texture(id)
		if err := p.machine.all((&virtiogpu.CtxCreate{CtrlHdr: virtiogpu.CtrlHdr{CtxID: id}}).Append(nil),
			(&virtiogpu.ResourceCreate3D{ResourceID: t, Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8A8,
				Bind: virglcmd.BindRenderTarget, Width: side, Height: side, Depth: 1, ArraySize: 1}).Append(nil),
			(&virtiogpu.CtxResource{CtrlHdr: virtiogpu.CtrlHdr{Type: virtiogpu.CmdCtxAttachResource, CtxID: id}, ResourceID: t}).Append(nil),
			surface(id)); err != nil {
			return err
		}
	}
	return nil
}

func (p population) shrink(fromR, toR, fromC, toC int) error {
	for id := uint32(fromR + 1); id <= uint32(toR); id++ {
		if err := p.do(unref(id)); err != nil {
			return err
		}
	}
	for id := uint32(fromC + 1); id <= uint32(toC); id++ {
		if err := p.machine.all((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdCtxDestroy, CtxID: id}).Append(nil), unref(texture(id))); err != nil {
			return err
		}
	}
	return nil
}

func texture(ctx uint32) uint32 { return firstTexture + ctx }

func (p population) measure(who string, resources, contexts int, o options, rep *Report) error {
	var flushes, transfers, clears [][]byte
	for i := range uint32(resources) {
		id := 1 + i*7919%uint32(resources) // a prime: one after the other is not near it
		flushes = append(flushes, flush(id, rect(side, side)))
		transfers = append(transfers, transfer(id, rect(side, side), 0))
	}
	for i := range uint32(contexts) {
		clears = append(clears, clearing(1+i))
	}
	for _, c := range []struct {
		name string
		cmds [][]byte
	}{{"RESOURCE_FLUSH, not shown", flushes}, {"TRANSFER_TO_HOST_2D 16x16", transfers}, {"SUBMIT_3D, a clear", clears}} {
		// Single commands in turn, so that a list longer than the time does not matter.
		next := 0
		r, err := p.machine.measure(o.each, 1, func() error {
			at := time.Now()
			err := p.do(c.cmds[next%len(c.cmds)])
			p.times = append(p.times, time.Since(at))
			next++
			return err
		})
		if err != nil {
			return err
		}
		rep.goal("with many: "+c.name, "commands/s", who, r.perSecond, r.cpu)
		rep.goal("with many: "+c.name+", latency p50", "µs", who, r.p50)
	}
	return nil
}

// surface makes the context's surface and clears it for the first time.
func surface(ctx uint32) []byte {
	var b virglcmd.Builder
	b.CreateSurface(1, texture(ctx), virglcmd.FormatB8G8R8A8, 0, 0)
	b.SetFramebuffer(1)
	b.Clear(virglcmd.ClearColor0, [4]float32{1, 0, 0, 1}, 0, 0)
	return submit(ctx, b.Bytes())
}

func clearing(ctx uint32) []byte {
	var b virglcmd.Builder
	b.Clear(virglcmd.ClearColor0, [4]float32{0, 1, 0, 1}, 0, 0)
	return submit(ctx, b.Bytes())
}

func submit(ctx uint32, stream []byte) []byte {
	return append((&virtiogpu.Submit3D{CtrlHdr: virtiogpu.CtrlHdr{CtxID: ctx}, Size: uint32(len(stream))}).Append(nil), stream...)
}

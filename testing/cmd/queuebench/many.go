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

// The kinds of command.
const (
	flushes   = "RESOURCE_FLUSH, not shown"
	transfers = "TRANSFER_TO_HOST_2D 16x16"
	clears    = "SUBMIT_3D, a clear"
)

// The columns of this part.
const (
	few  = "few"
	many = "many"
	each = "each of many"
)

// measureMany measures the same commands on two brokers, in turns: one has few resources and
// contexts, the other many, of which the same few are used; and then all of the many.
func measureMany(ctx context.Context, l lineup, o options, rep *Report) error {
	populations := map[string]*population{}
	for _, size := range []struct {
		name                string
		resources, contexts int
	}{{few, fewResources, fewContexts}, {many, manyResources, manyContexts}} {
		m, err := l.boot(withGL)
		if err != nil {
			return err
		}
		defer m.quit()
		p := &population{machine: m}
		populations[size.name] = p
		begun := time.Now()
		if err := p.grow(size.resources, size.contexts); err != nil {
			return m.proc.explain(err)
		}
		fmt.Printf("%d resources and %d contexts made in %.1f s\n", size.resources, size.contexts, time.Since(begun).Seconds())
		mem, err := m.proc.memory()
		if err != nil {
			return err
		}
		rep.add("with many: resident memory", "MiB", size.name, float64(mem.RSS)/1024)
	}
	for round := range o.rounds {
		for _, kind := range []string{flushes, transfers, clears} {
			if err := inTurns(ctx, round, []string{few, many, each}, func(who string) error {
				switch who {
				case few:
					return populations[few].measure(kind, who, fewResources, fewContexts, o, rep)
				case many:
					return populations[many].measure(kind, who, fewResources, fewContexts, o, rep)
				}
				return populations[many].measure(kind, who, manyResources, manyContexts, o, rep)
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// population is the resources 1 to n and the contexts 1 to n, each with a texture.
type population struct{ *machine }

func (p *population) grow(resources, contexts int) error {
	page, err := p.Pages.Scattered(side * side * 4) // the same for everyone
	if err != nil {
		return err
	}
	for id := uint32(1); id <= uint32(resources); id++ {
		// With its first pixels a resource gets its memory.
		if err := p.all(create2D(id, side, side), attach(id, page), transfer(id, rect(side, side), 0)); err != nil {
			return err
		}
	}
	for id := uint32(1); id <= uint32(contexts); id++ {
		t := texture(id)
		if err := p.all((&virtiogpu.CtxCreate{CtrlHdr: virtiogpu.CtrlHdr{CtxID: id}}).Append(nil),
			(&virtiogpu.ResourceCreate3D{ResourceID: t, Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8A8,
				Bind: virglcmd.BindRenderTarget, Width: side, Height: side, Depth: 1, ArraySize: 1}).Append(nil),
			(&virtiogpu.CtxResource{CtrlHdr: virtiogpu.CtrlHdr{Type: virtiogpu.CmdCtxAttachResource, CtxID: id}, ResourceID: t}).Append(nil),
			surface(id)); err != nil {
			return err
		}
	}
	return nil
}

func texture(ctx uint32) uint32 { return firstTexture + ctx }

func (p *population) measure(kind, who string, resources, contexts int, o options, rep *Report) error {
	var cmds [][]byte
	n := uint32(resources)
	if kind == clears {
		n = uint32(contexts)
	}
	for i := range n {
		id := 1 + i*7919%n // a prime: what follows each other does not lie beside each other
		switch kind {
		case flushes:
			cmds = append(cmds, flush(id, rect(side, side)))
		case transfers:
			cmds = append(cmds, transfer(id, rect(side, side), 0))
		default:
			cmds = append(cmds, clearing(id))
		}
	}
	next := 0
	r, err := p.machine.measure(o.each, 1, func() error {
		at := time.Now()
		err := p.do(cmds[next%len(cmds)])
		p.times = append(p.times, time.Since(at))
		next++
		return err
	})
	if err != nil {
		return err
	}
	rep.goal("with many: "+kind, "commands/s", who, r.perSecond, r.cpu)
	rep.goal("with many: "+kind+", latency p50", "µs", who, r.p50)
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

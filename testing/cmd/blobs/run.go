package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

type options struct {
	only                string
	cycles, resetCycles int
	worker, dir         string
}

// programs are the binaries that a run needs, in a folder of their own.
type programs struct {
	dir, broker, guest, self string

	root *lab.Root
	out  report.Dir
}

const module = "github.com/gpubroker/gpubroker/"

func buildPrograms(ctx context.Context) (*programs, error) {
	dir, err := os.MkdirTemp("", "gpubroker-blobs-")
	if err != nil {
		return nil, err
	}
	p := &programs{dir: dir, broker: filepath.Join(dir, "gpubroker"), guest: filepath.Join(dir, "blobguest"), self: filepath.Join(dir, "blobs")}
	err = errors.Join(brokerproc.Build(ctx, p.broker), lab.Build(ctx, module+"testing/blobguest", p.guest),
		lab.Build(ctx, module+"testing/cmd/blobs", p.self))
	if err != nil {
		p.remove()
		return nil, err
	}
	return p, nil
}

func (p *programs) remove() { _ = os.RemoveAll(p.dir) }

func run(ctx context.Context, o options) error {
	start := time.Now()
	parts := strings.FieldsFunc(o.only, func(c rune) bool { return c == ',' })
	out, err := report.NewDir("blobs")
	if err != nil {
		return err
	}
	root, err := lab.Find()
	if err != nil {
		return err
	}
	fmt.Println("building gpubroker and the guest's program")
	p, err := buildPrograms(ctx)
	if err != nil {
		return err
	}
	defer p.remove()
	p.root, p.out = root, out
	rep := &reportJSON{Features: map[string]string{}, QEMUAlive: true}
	if rep.Versions, err = root.Versions(); err != nil {
		return err
	}
	var errs []error
	if contains(parts, "2d") || contains(parts, "weston") {
		errs = append(errs, p.guest2D(ctx, parts, rep))
	}
	if contains(parts, "3d") || contains(parts, "cycles") || contains(parts, "reset") {
		errs = append(errs, p.guest3D(ctx, o, parts, rep))
	}
	if contains(parts, "vm") {
		errs = append(errs, p.hostVM(ctx, rep))
	}
	rep.Seconds = time.Since(start).Seconds()
	if err := out.JSON(rep); err != nil {
		return err
	}
	fmt.Printf("wrote %s/report.json and the screenshots beside it, %.1f s\n", out.Path, rep.Seconds)
	return errors.Join(append(errs, rep.verdict())...)
}

// wanted are the features that the guest's kernel must have accepted.
var wanted = map[string][]string{
	"off": {"+edid", "+resource_blob", "+host_visible"},
	"on":  {"+virgl", "+edid", "+resource_blob", "+host_visible", "+context_init"},
}

// boot starts a guest and notes what its kernel says.
func (p *programs) boot(ctx context.Context, virgl string, rep *reportJSON) (*rig, func(), error) {
	fmt.Printf("booting a Debian guest on gpubroker --virgl=%s\n", virgl)
	log, err := p.out.Create("gpubroker-virgl-" + virgl + ".log")
	if err != nil {
		return nil, nil, err
	}
	r, err := p.newRig(ctx, virgl, log)
	if err != nil {
		_ = log.Close()
		return nil, nil, err
	}
	end := func() {
		if !r.alive(ctx) {
			rep.QEMUAlive = false
			rep.problem("QEMU died with --virgl=%s: %v:\n%s", virgl, r.exit(ctx), lastWords(r.vm.Console()))
		}
		if err := r.stop(); err != nil {
			rep.problem("%v", err)
		}
		_ = log.Close()
	}
	text, err := r.features(ctx)
	rep.Features["virgl="+virgl] = text
	fmt.Println("the guest's kernel says:", text)
	for _, f := range wanted[virgl] {
		if !strings.Contains(text, f) {
			rep.problem("the guest's kernel did not say %s with --virgl=%s", f, virgl)
		}
	}
	return r, end, err
}

func (p *programs) guest2D(ctx context.Context, parts []string, rep *reportJSON) error {
	r, end, err := p.boot(ctx, "off", rep)
	if err != nil {
		return err
	}
	defer end()
	if contains(parts, "2d") {
		cases, err := p.linuxCases(ctx, r, "off", cases2D)
		rep.Cases = append(rep.Cases, cases...)
		if err != nil {
			return err
		}
	}
	if contains(parts, "weston") {
		c, err := p.guestWeston(ctx, r)
		rep.Cases = append(rep.Cases, c)
		return err
	}
	return nil
}

func (p *programs) guest3D(ctx context.Context, o options, parts []string, rep *reportJSON) error {
	r, end, err := p.boot(ctx, "on", rep)
	if err != nil {
		return err
	}
	defer end()
	if contains(parts, "3d") {
		cases, err := p.linuxCases(ctx, r, "on", cases3D)
		rep.Cases = append(rep.Cases, cases...)
		if err != nil {
			return err
		}
	}
	if contains(parts, "cycles") {
		if err := p.cycles(ctx, r, o.cycles, rep); err != nil {
			return err
		}
	}
	if contains(parts, "reset") {
		return p.resetCycles(ctx, r, o.resetCycles, rep)
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

// nestedTime bounds everything. Where both QEMUs translate, user space alone takes ten
// minutes; with the emulated SVM it is half a minute.
const nestedTime = 45 * time.Minute

// nestedReport is out/dmabuf-nested/report.json: a guest in a guest, with two GPUs, each
// a gpubroker of its own in a window of its own.
type nestedReport struct {
	Accel       string            `json:"nested_accel"` // of the inner QEMU; the outer one always translates
	Cube        nestedGPU         `json:"cube"`         // kmscube, on vhost-user-gpu-pci with virgl
	Weston      nestedGPU         `json:"weston"`       // weston with pixman, on the generic device without virgl
	BootSeconds float64           `json:"boot_seconds"` // of the nested guest
	Seconds     float64           `json:"seconds"`      // all, the outer machine's boot included
	Versions    map[string]string `json:"versions"`
}

// nestedGPU is what one broker did from the first frame of its program on. The
// console that was there before is not counted, but for Errors.
type nestedGPU struct {
	GuestRenderer string            `json:"guest_renderer"`
	Features      string            `json:"features"` // that the nested kernel accepted
	Tier          string            `json:"tier"`
	Tiers         map[string]uint64 `json:"tiers"` // frames by tier
	Frames        uint64            `json:"frames"`
	BytesCopied   uint64            `json:"bytes_copied"`
	Exports       uint64            `json:"exports"`
	Errors        uint64            `json:"errors"`
	Colours       int               `json:"colours"`       // in the screenshot
	Drawn         float64           `json:"drawn"`         // share of its pixels that are not the background
	FirstSeconds  float64           `json:"first_seconds"` // from the start of the program to its first frame
	FPS           float64           `json:"frames_per_second"`
}

// runNested boots the machine that has dma-bufs, and in it a guest whose GPUs are
// brokers. accel is the inner QEMU's: kvm, tcg, or empty for what the machine has.
func runNested(ctx context.Context, accel string) error {
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, nestedTime, fmt.Errorf("not done within %v", nestedTime))
	defer cancel()
	out, err := report.NewDir("dmabuf-nested")
	if err != nil {
		return err
	}
	root, err := lab.Find()
	if err != nil {
		return err
	}
	fmt.Println("building gpubroker")
	progs, err := buildPrograms(ctx)
	if err != nil {
		return err
	}
	defer progs.remove()
	err = runVM(ctx, root, progs, lab.VMConfig{}, out.Path, fmt.Sprintf("-worker nested -nested-accel '%s'", accel))
	rep := nestedReport{}
	if body, readErr := os.ReadFile(filepath.Join(out.Path, workerFile)); readErr == nil {
		err = errors.Join(err, json.Unmarshal(body, &rep), os.Remove(filepath.Join(out.Path, workerFile)))
	}
	versions, versionsErr := root.Versions()
	rep.Versions = versions
	rep.Seconds = time.Since(start).Seconds()
	if err := errors.Join(err, versionsErr, out.JSON(rep)); err != nil {
		return err
	}
	fmt.Printf("wrote %s/report.json and the screenshots beside it, %.0f s\n", out.Path, rep.Seconds)
	return rep.verdict()
}

// minFrames is how many frames of each program are enough.
const minFrames = 20

// verdict says what is not as it should be.
func (r *nestedReport) verdict() error {
	return errors.Join(r.Cube.judge("kmscube", "virgl", tierDMABuf), r.Weston.judge("weston", "pixman", tierUDMABuf))
}

// The tiers that copy nothing where dma-bufs are.
const (
	tierDMABuf  = "dmabuf"
	tierUDMABuf = "udmabuf"
)

func (g *nestedGPU) judge(name, renderer, tier string) error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("nested "+name+": "+format, args...))
	}
	if !strings.Contains(strings.ToLower(g.GuestRenderer), renderer) {
		wrong("rendered with %q, want %s", g.GuestRenderer, renderer)
	}
	if g.Tier != tier || g.Tiers[tier] != g.Frames {
		wrong("tier %q, frames by tier %v, want %d of %s", g.Tier, g.Tiers, g.Frames, tier)
	}
	if g.Frames < minFrames {
		wrong("%d frames, want %d", g.Frames, minFrames)
	}
	if g.BytesCopied != 0 {
		wrong("%d bytes copied, want 0", g.BytesCopied)
	}
	if g.Errors > 0 {
		wrong("%d commands were refused", g.Errors)
	}
	if g.Colours < 50 || g.Drawn < 0.02 {
		wrong("the screenshot shows no client: %d colours, %.1f %% of it drawn", g.Colours, 100*g.Drawn)
	}
	return errors.Join(errs...)
}

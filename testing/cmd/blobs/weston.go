package main

import (
	"context"
	"fmt"

	"github.com/gpubroker/gpubroker/testing/report"
)

// guestWeston runs a compositor in the guest that draws with the CPU, on its dumb
// buffers, and a client in it.
func (p *programs) guestWeston(ctx context.Context, r *rig) (*caseJSON, error) {
	c := &caseJSON{Name: "weston with pixman, virgl=off", Host: "plain", Guest: "linux"}
	before, err := r.status()
	if err != nil {
		return c, err
	}
	_, err = r.vm.Check(ctx, `set -e
/lib/systemd/systemd-udevd --daemon; udevadm trigger; udevadm settle
export XDG_RUNTIME_DIR=/tmp/xdg; mkdir -p -m 700 $XDG_RUNTIME_DIR
seatd > /tmp/seatd.log 2>&1 &
sleep 0.5
weston --backend=drm --renderer=pixman --continue-without-input --shell=kiosk --socket=w --idle-time=0 > /tmp/weston.log 2>&1 &
for i in $(seq 100); do [ -S $XDG_RUNTIME_DIR/w ] && break; sleep 0.2; done
[ -S $XDG_RUNTIME_DIR/w ] || { cat /tmp/weston.log; exit 1; }
WAYLAND_DISPLAY=w weston-simple-shm > /tmp/shm.log 2>&1 &
sleep 4
`)
	if err != nil {
		return c, err
	}
	img, err := r.weston.Screenshot(ctx)
	if err != nil {
		return c, err
	}
	if err := p.out.PNG("weston.png", img); err != nil {
		return c, err
	}
	after, err := r.status()
	if err != nil {
		return c, err
	}
	if colours, drawn := report.Colours(img); colours < 50 || drawn < 0.02 {
		c.problem("the screenshot shows no client: %d colours, %.1f %% of it drawn", colours, 100*drawn)
	}
	c.Frames = after.Frames.DMABuf + after.Frames.Shm - before.Frames.DMABuf - before.Frames.Shm
	c.BytesCopied = after.BytesCopied - before.BytesCopied
	if len(after.Scanouts) == 1 {
		c.Tier = after.Scanouts[0].Tier
	}
	if n := after.Errors + after.RingErrors - before.Errors - before.RingErrors; n > 0 {
		c.problem("%d commands were refused", n)
	}
	c.judge(tierCopy)
	fmt.Printf("%-30s %-8s %4d frames %9d bytes copied %v\n", c.Name, c.Tier, c.Frames, c.BytesCopied, c.Problems)
	return c, nil
}

package broker

import (
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// maxDrawWaits is how many may wait for drawing at a time; one commit of a window
// is one.
const maxDrawWaits = 4096

// drawWait is somebody who waits until what a resource shows is drawn.
type drawWait struct {
	ctx, id uint32 // renderer fence
	done    chan error
}

// startDrawWait finds the fence that a resource's pixels wait for, as a flush of a
// scanout does (fencePresent). The guest's drawing commands may be in the queue
// still, when a stream told of the frame.
func (d *Device) startDrawWait(h *handle, w *drawWait) {
	d.drain()
	if h.epoch != d.epoch {
		w.done <- proxy.ErrGone
		return
	}
	drew := d.lastDrawer(h.res)
	if drew == nil || drew.idle {
		w.done <- nil
		return
	}
	w.ctx, w.id = drew.id, drew.fence
	if drew.dirty {
		id, err := d.newFence(drew.id)
		if err != nil {
			d.quiet.warn(d.log, "no fence before a window's frame; it may be shown half drawn", zap.Uint32("ctx", drew.id), zap.Error(err))
			w.done <- nil
			return
		}
		w.id = id
	}
	switch {
	case drew.idle: // signalled while it was made
		w.done <- nil
	case len(d.drawWaits) >= maxDrawWaits:
		w.done <- fmt.Errorf("%d frames wait for the GPU already", maxDrawWaits)
	default:
		d.drawWaits = append(d.drawWaits, w)
	}
}

func (d *Device) endDrawWait(w *drawWait) {
	if i := slices.Index(d.drawWaits, w); i >= 0 {
		d.drawWaits = slices.Delete(d.drawWaits, i, i+1)
	}
}

// drawnUpTo ends the waits for fences of ctx up to id.
func (d *Device) drawnUpTo(ctx, id uint32) {
	if len(d.drawWaits) == 0 {
		return
	}
	d.drawWaits = slices.DeleteFunc(d.drawWaits, func(w *drawWait) bool {
		hit := w.ctx == ctx && int32(w.id-id) <= 0
		if hit {
			w.done <- nil
		}
		return hit
	})
}

// failDrawWaits ends every wait.
func (d *Device) failDrawWaits(err error) {
	for _, w := range d.drawWaits {
		w.done <- err
	}
	d.drawWaits = nil
}

// lastDrawer finds the context that drew last among those that hold the resource,
// or held it while somebody had it open.
func (d *Device) lastDrawer(res *resource) *guestContext {
	var drew *guestContext
	for _, list := range [2][]uint32{res.ctxs, res.left} {
		for _, id := range list {
			if c := d.contexts[id]; c != nil && (drew == nil || c.submits > drew.submits) {
				drew = c
			}
		}
	}
	return drew
}

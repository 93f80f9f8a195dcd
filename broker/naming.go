package broker

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// maxNamings is how many namings of resources that do not exist yet wait at a time.
const maxNamings = 256

// Names finds the resources of a VM's devices for the clients of its guest.
type Names struct {
	GPU    *Device
	Import *Device // nil: there is none

	once    sync.Once
	formats []proxy.Format // set by once
}

var _ proxy.Resources = (*Names)(nil)

// Open implements proxy.Resources.
func (n *Names) Open(ctx context.Context, owner proxy.Owner, dev proxy.DeviceID, id uint32) (proxy.Resource, error) {
	d := n.GPU
	if dev == proxy.DeviceImport {
		d = n.Import
	}
	if d == nil || dev > proxy.DeviceImport {
		return nil, fmt.Errorf("%w: this VM has no device %d", proxy.ErrUnknownResource, dev)
	}
	return d.open(ctx, owner, id)
}

// naming is an Open that waits on the render thread.
type naming struct {
	owner  proxy.Owner
	id     uint32
	answer chan named
}

// named is its answer.
type named struct {
	h   *handle
	err error
}

// open finds a resource for owner, or waits for it until ctx ends. Any goroutine
// but the render thread.
func (d *Device) open(ctx context.Context, owner proxy.Owner, id uint32) (proxy.Resource, error) {
	w := &naming{owner: owner, id: id, answer: make(chan named, 1)}
	if !d.cfg.Loop.Post(func() { d.startNaming(w) }) {
		return nil, proxy.ErrGone
	}
	select {
	case a := <-w.answer:
		return a.result()
	case <-ctx.Done():
		d.cfg.Loop.Call(func() { d.endNaming(w) })
	case <-d.cfg.Loop.done:
	}
	select {
	case a := <-w.answer:
		return a.result()
	default:
		return nil, proxy.ErrGone
	}
}

func (a named) result() (proxy.Resource, error) {
	if a.err != nil {
		return nil, a.err
	}
	return a.h, nil
}

// startNaming answers if that can be done now. A stream overtakes the control
// queue, so what the guest put there before is served first.
func (d *Device) startNaming(w *naming) {
	if h := d.takePin(w.owner.Ctx, w.id); h != nil {
		w.answer <- named{h: h}
		return
	}
	d.drain()
	switch h, err := d.name(w.owner, w.id); {
	case h != nil:
		w.answer <- named{h: h}
	case err != nil:
		w.answer <- named{err: err}
	case len(d.namings) >= maxNamings:
		w.answer <- named{err: fmt.Errorf("%w: %d, and %d others are waited for already", proxy.ErrUnknownResource, w.id, maxNamings)}
	default:
		d.namings = append(d.namings, w)
	}
}

// endNaming gives up.
func (d *Device) endNaming(w *naming) {
	if i := slices.Index(d.namings, w); i >= 0 {
		d.namings = slices.Delete(d.namings, i, i+1)
		h, err := d.name(w.owner, w.id)
		if h == nil && err == nil {
			err = fmt.Errorf("%w: %d", proxy.ErrUnknownResource, w.id)
		}
		w.answer <- named{h, err}
	}
}

// retryNamings looks whether a command brought what somebody waits for.
func (d *Device) retryNamings() {
	d.namings = slices.DeleteFunc(d.namings, func(w *naming) bool {
		h, _ := d.name(w.owner, w.id) // one that is not owned may be attached next
		if h != nil {
			w.answer <- named{h: h}
		}
		return h != nil
	})
}

// failNamings ends every wait.
func (d *Device) failNamings(err error) {
	for _, w := range d.namings {
		w.answer <- named{err: err}
	}
	d.namings = nil
}

// name opens a resource that exists; nil and no error if it may still come.
func (d *Device) name(owner proxy.Owner, id uint32) (*handle, error) {
	if owner == (proxy.Owner{}) {
		return nil, fmt.Errorf("%w: %d, and this client has no identity", proxy.ErrNotOwned, id)
	}
	res := d.resources[id]
	if res == nil {
		return nil, nil
	}
	if d.owns(owner, res) {
		return d.hold(res), nil
	}
	if d.ctrl.q == nil && !d.cfg.Import {
		return nil, nil // stopped: its attachment may still be in the queue
	}
	return nil, fmt.Errorf("%w: %d", proxy.ErrNotOwned, id)
}

func (d *Device) owns(owner proxy.Owner, res *resource) bool {
	if d.cfg.Import {
		if !res.owned {
			res.owner, res.owned = owner, true
		}
		return res.owner == owner
	}
	for _, id := range res.ctxs {
		c := d.contexts[id]
		if c != nil && (owner.Ctx != 0 && owner.Ctx == id || owner.Token != "" && owner.Token == c.name) {
			return true
		}
	}
	return false
}

// drain serves what the guest has put into the control queue by now.
func (d *Device) drain() {
	if d.ctrl.q == nil {
		return
	}
	for left := d.ctrl.q.Size(); left > 0; left -= batch {
		if !d.serve(&d.ctrl, virtiogpu.ControlQueue, false) {
			return
		}
	}
}

// Formats implements proxy.Resources.
func (n *Names) Formats() []proxy.Format {
	n.once.Do(func() {
		n.GPU.cfg.Loop.Call(func() { n.formats = n.GPU.drawable() })
	})
	return n.formats
}

// Where struct virgl_caps_v1 (virgl_hw.h) has the bit sets of formats that can be
// sampled and rendered: a bit for each virgl format.
const (
	capsSampler = 4
	capsRender  = capsSampler + 64
	capsEnd     = capsRender + 64
)

// drawable lists the formats that the renderer both draws and samples.
func (d *Device) drawable() (out []proxy.Format) {
	if !d.info.GL {
		return nil
	}
	for _, set := range slices.Backward(d.info.Capsets) { // the newest first
		if set.ID != 1 && set.ID != 2 || set.MaxSize < capsEnd {
			continue
		}
		caps := make([]byte, set.MaxSize)
		if err := d.rend.FillCapset(set.ID, set.MaxVersion, caps); err != nil {
			continue
		}
		for _, f := range virtiogpu.Formats {
			bit := func(at int) bool { return caps[at+int(f)/8]>>(f%8)&1 != 0 }
			if c, _ := f.Fourcc(); bit(capsSampler) && bit(capsRender) {
				out = append(out, proxy.Format{Fourcc: c, Modifier: dmabuf.ModLinear}, proxy.Format{Fourcc: c, Modifier: dmabuf.ModInvalid})
			}
		}
		break
	}
	return out
}

// maxPins is how many resources a context may have named and nobody opened yet.
const maxPins = 4096

// pin opens a resource on behalf of ctx, at the place in the control queue where
// the guest named it: it may let go of it in the next command.
func (d *Device) pin(ctx *guestContext, id uint32) error {
	res := d.resources[id]
	switch {
	case res == nil:
		return fmt.Errorf("%w: %d", proxy.ErrUnknownResource, id)
	case !slices.Contains(res.ctxs, ctx.id):
		return fmt.Errorf("%w: %d is not attached to context %d", proxy.ErrNotOwned, id, ctx.id)
	}
	if len(ctx.pins) >= maxPins {
		ctx.pins[0].release()
		ctx.pins = slices.Delete(ctx.pins, 0, 1)
	}
	ctx.pins = append(ctx.pins, d.hold(res))
	return nil
}

// takePin finds what ctx pinned first under this id.
func (d *Device) takePin(ctx, id uint32) *handle {
	c := d.contexts[ctx]
	if c == nil {
		return nil
	}
	for i, h := range c.pins {
		if h.res.id == id {
			c.pins = slices.Delete(c.pins, i, i+1)
			return h
		}
	}
	return nil
}

// dropPins lets go of what a context pinned and nobody opened.
func (c *guestContext) dropPins() {
	for _, h := range c.pins {
		h.release()
	}
	c.pins = nil
}

package broker

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gpubroker/gpubroker/broker/crossdomain"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/virgl"
)

func (d *Device) getCapsetInfo(r *request) error {
	var c virtiogpu.GetCapsetInfo
	if err := c.Decode(r.body); err != nil {
		return err
	}
	if c.CapsetIndex >= uint32(len(d.capsets)) {
		return fmt.Errorf("%w: capset_index %d, there are %d", virtiogpu.ErrInvalidParameter, c.CapsetIndex, len(d.capsets))
	}
	s := d.capsets[c.CapsetIndex]
	resp := virtiogpu.CapsetInfo{CtrlHdr: r.hdr.Reply(virtiogpu.RespOKCapsetInfo),
		CapsetID: s.ID, CapsetMaxVersion: s.MaxVersion, CapsetMaxSize: s.MaxSize}
	d.out = resp.Append(d.out)
	return nil
}

func (d *Device) getCapset(r *request) error {
	var c virtiogpu.GetCapset
	if err := c.Decode(r.body); err != nil {
		return err
	}
	i := slices.IndexFunc(d.capsets, func(s virgl.CapsetInfo) bool { return s.ID == c.CapsetID })
	if i < 0 {
		return fmt.Errorf("%w: capset_id %d is not offered", virtiogpu.ErrInvalidParameter, c.CapsetID)
	}
	s := d.capsets[i]
	if c.CapsetVersion > s.MaxVersion {
		return fmt.Errorf("%w: capset_version %d of capset %d, limit %d", virtiogpu.ErrInvalidParameter, c.CapsetVersion, s.ID, s.MaxVersion)
	}
	h := r.hdr.Reply(virtiogpu.RespOKCapset)
	d.out = h.Append(d.out)
	if s.ID == crossdomain.CapsetID {
		d.out = crossdomain.Capset(d.out, d.cfg.Apps, d.cfg.Alloc2D != nil)
		return nil
	}
	d.out = append(d.out, make([]byte, s.MaxSize)...)
	if err := d.rend.FillCapset(s.ID, c.CapsetVersion, d.out[virtiogpu.SizeCtrlHdr:]); err != nil {
		return fmt.Errorf("%w: %w", virtiogpu.ErrUnspec, err)
	}
	return nil
}

func (d *Device) need3D() error {
	if !d.info.GL {
		return fmt.Errorf("%w: 3D is not available: the renderer is %q", virtiogpu.ErrUnspec, d.info.Library)
	}
	return nil
}

// context finds the header's context.
func (d *Device) context(r *request) (*guestContext, error) {
	if c := d.contexts[r.hdr.CtxID]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("%w: context %d", virtiogpu.ErrInvalidContext, r.hdr.CtxID)
}

func (d *Device) ctxCreate(r *request) error {
	var c virtiogpu.CtxCreate
	if err := c.Decode(r.body); err != nil {
		return err
	}
	id := r.hdr.CtxID
	if id == 0 || d.contexts[id] != nil {
		return fmt.Errorf("%w: context %d exists or is reserved", virtiogpu.ErrInvalidContext, id)
	}
	if n := len(d.contexts); n >= d.limits.Contexts {
		return fmt.Errorf("%w: %d contexts, limit %d", virtiogpu.ErrOutOfMemory, n, d.limits.Contexts)
	}
	name := c.DebugName()
	capset := uint32(0) // context_init means something only with its feature
	if d.features&(1<<virtiogpu.FeatureContextInit) != 0 {
		capset = c.ContextInit & virtiogpu.ContextInitCapsetMask
	}
	if capset != 0 && !slices.ContainsFunc(d.capsets, func(s virgl.CapsetInfo) bool { return s.ID == capset }) {
		return fmt.Errorf("%w: capset %d of context %d (%s) is not offered", virtiogpu.ErrInvalidParameter, capset, id, name)
	}
	if capset == crossdomain.CapsetID {
		d.createCross(id, name)
		return nil
	}
	_, err := d.createContext(id, capset, name)
	return err
}

// createContext makes a context of the renderer.
func (d *Device) createContext(id, capset uint32, name string) (*guestContext, error) {
	if err := d.need3D(); err != nil {
		return nil, err
	}
	if err := d.rend.CreateContext(id, capset, name); err != nil {
		return nil, fmt.Errorf("%w: %w", virtiogpu.ErrOutOfMemory, err)
	}
	c := &guestContext{id: id, init: capset, name: name, idle: true}
	d.contexts[id] = c
	return c, nil
}

func (d *Device) ctxDestroy(r *request) error {
	c, err := d.context(r)
	if err != nil {
		return err
	}
	d.destroyContext(c)
	return nil
}

func (d *Device) destroyContext(c *guestContext) {
	// Fences of the context never signal once it is gone.
	d.fences.signal(c.id, d.lastFence)
	d.presents.signal(c.id, d.lastFence)
	d.drawnUpTo(c.id, d.lastFence)
	c.dropPins()
	d.dropRings(c.id)
	if c.cross != nil {
		c.cross.Close(false)
	} else {
		d.rend.DestroyContext(c.id)
	}
	delete(d.contexts, c.id)
	for _, res := range d.resources {
		res.detachCtx(c.id)
	}
	d.completeFences()
	d.showReady()
}

func (d *Device) ctxAttachResource(r *request) error {
	var c virtiogpu.CtxResource
	if err := c.Decode(r.body); err != nil {
		return err
	}
	ctx, err := d.context(r)
	if err != nil {
		return err
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	if ctx.cross == nil {
		if err := d.promote(res); err != nil {
			return err
		}
	}
	if ctx.cross == nil && res.inRenderer() {
		d.rend.AttachResource(ctx.id, res.id)
	}
	res.attachCtx(ctx.id)
	return nil
}

func (d *Device) ctxDetachResource(r *request) error {
	var c virtiogpu.CtxResource
	if err := c.Decode(r.body); err != nil {
		return err
	}
	ctx, err := d.context(r)
	if err != nil {
		return err
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	if !slices.Contains(res.ctxs, ctx.id) {
		return fmt.Errorf("%w: resource %d is not attached to context %d", virtiogpu.ErrInvalidResource, res.id, ctx.id)
	}
	if ctx.cross == nil && res.inRenderer() {
		d.rend.DetachResource(ctx.id, res.id)
	}
	res.detachCtx(ctx.id)
	return nil
}

func (d *Device) resourceCreate3D(r *request) error {
	var c virtiogpu.ResourceCreate3D
	if err := c.Decode(r.body); err != nil {
		return err
	}
	if err := d.need3D(); err != nil {
		return err
	}
	if err := d.checkNew(c.ResourceID); err != nil {
		return err
	}
	return d.create3D(&resource{args: virgl.ResourceArgs{
		ID: c.ResourceID, Target: c.Target, Format: c.Format, Bind: c.Bind,
		Width: c.Width, Height: c.Height, Depth: c.Depth, ArraySize: c.ArraySize,
		LastLevel: c.LastLevel, Samples: c.NrSamples, Flags: c.Flags,
	}})
}

// create3D makes the resource that res.args describe.
func (d *Device) create3D(res *resource) error {
	res.id, res.kind = res.args.ID, kind3D
	if f, ok := virtiogpu.Format(res.args.Format).Fourcc(); ok && res.args.Target == targetTexture2D {
		res.fourcc = f
	}
	if err := d.admit(res); err != nil {
		return err
	}
	if err := d.rend.CreateResource(&res.args); err != nil {
		return fmt.Errorf("%w: %w", virtiogpu.ErrInvalidParameter, err)
	}
	d.resources[res.id] = res
	return nil
}

func (d *Device) transfer(r *request) (*virgl.Transfer, error) {
	var c virtiogpu.TransferHost3D
	if err := c.Decode(r.body); err != nil {
		return nil, err
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return nil, err
	}
	if !res.inRenderer() {
		return nil, fmt.Errorf("%w: resource %d is not the renderer's", virtiogpu.ErrInvalidResource, res.id)
	}
	if res.backing == nil {
		return nil, fmt.Errorf("%w: resource %d has no backing", virtiogpu.ErrUnspec, res.id)
	}
	if ctx := r.hdr.CtxID; ctx != 0 {
		if c, err := d.context(r); err != nil {
			return nil, err
		} else if c.cross != nil {
			return nil, fmt.Errorf("%w: context %d draws nothing", virtiogpu.ErrInvalidContext, ctx)
		}
		if !slices.Contains(res.ctxs, ctx) {
			return nil, fmt.Errorf("%w: resource %d is not attached to context %d", virtiogpu.ErrInvalidResource, res.id, ctx)
		}
	}
	d.xfer = virgl.Transfer{
		Resource: res.id, Ctx: r.hdr.CtxID, Level: c.Level, Stride: c.Stride, LayerStride: c.LayerStride,
		Box: virgl.Box(c.Box), Offset: c.Offset,
	}
	return &d.xfer, nil
}

func (d *Device) transferToHost3D(r *request) error {
	t, err := d.transfer(r)
	if err != nil {
		return err
	}
	if err := d.rend.TransferToHost(t); err != nil {
		return fmt.Errorf("%w: %w", virtiogpu.ErrInvalidParameter, err)
	}
	d.touched(r.hdr.CtxID)
	return nil
}

func (d *Device) transferFromHost3D(r *request) error {
	t, err := d.transfer(r)
	if err != nil {
		return err
	}
	if err := d.rend.TransferFromHost(t); err != nil {
		return fmt.Errorf("%w: %w", virtiogpu.ErrInvalidParameter, err)
	}
	return nil
}

func (d *Device) submit3D(r *request) error {
	var c virtiogpu.Submit3D
	if err := c.Decode(r.body); err != nil {
		return err
	}
	ctx, err := d.context(r)
	if err != nil {
		return err
	}
	stream, err := c.Stream(r.body)
	if err != nil {
		return err
	}
	if ctx.cross != nil {
		d.stats.Submits.Add(1)
		ctx.submitted++
		return d.submitCross(r, ctx, stream)
	}
	if len(stream)%4 != 0 {
		return fmt.Errorf("%w: size %d is not a multiple of 4", virtiogpu.ErrInvalidParameter, len(stream))
	}
	d.stats.Submits.Add(1)
	ctx.submitted++
	d.touched(ctx.id)
	err = d.rend.Submit(ctx.id, stream)
	if err != nil {
		err = fmt.Errorf("%w: context %d (%s): %w", virtiogpu.ErrInvalidParameter, ctx.id, ctx.name, err)
	}
	if r.hdr.Fenced() && err == nil {
		id, ferr := d.newFence(ctx.id)
		if ferr != nil {
			return errors.Join(virtiogpu.ErrUnspec, ferr)
		}
		r.fence, r.fenceCtx = id, ctx.id
	}
	return err
}

// touched notes that ctx gave the GPU work.
func (d *Device) touched(ctx uint32) {
	if c := d.contexts[ctx]; c != nil {
		d.lastSubmit++
		c.submits, c.dirty, c.idle = d.lastSubmit, true, false
	}
}

// promote gives a 2D resource a twin in the renderer, so that a context can use
// a dumb buffer as a texture. Its pixels live there from then on.
func (d *Device) promote(res *resource) error {
	if res.blob != nil {
		d.promoteBlob(res)
		return nil
	}
	if res.kind == kind3D {
		return nil
	}
	if err := d.need3D(); err != nil {
		return err
	}
	if err := d.rend.CreateResource(&res.args); err != nil {
		return fmt.Errorf("%w: %w", virtiogpu.ErrOutOfMemory, err)
	}
	if res.backing != nil {
		t := virgl.Transfer{Resource: res.id, Box: virgl.Box{W: res.args.Width, H: res.args.Height, D: 1}}
		err := d.rend.AttachBacking(res.id, res.backing.Segs)
		if err == nil && res.backing.Size >= uint64(res.args.Width)*uint64(res.args.Height)*4 {
			err = d.rend.TransferToHost(&t)
		}
		if err != nil {
			d.rend.UnrefResource(res.id)
			return fmt.Errorf("%w: %w", virtiogpu.ErrUnspec, err)
		}
	}
	d.dropPictures(res)
	res.buf.Release()
	res.buf = nil
	res.kind = kind3D
	d.keepResource(res)
	return nil
}

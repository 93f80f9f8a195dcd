package waylandtest

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// surface is a wl_surface: what the next commit will apply, and what is current.
type surface struct {
	id       wire.ID
	pending  Commit
	now      Commit
	xdg      wire.ID
	toplevel wire.ID
	sub      wire.ID
	serial   uint32 // of the last configure
	acked    bool   // some configure was acknowledged
	asked    bool   // the initial commit was seen
	frames   []wire.ID

	// Sub-surfaces are synchronised: their state waits for the parent's commit.
	parent   *surface
	children []*surface
	cached   *Commit
	x, y     int32
	below    bool

	sync       *surfaceSync
	presented  []wire.ID // wp_presentation_feedback objects that wait for the commit
	fractional proto.WpFractionalScaleV1
}

func of(cl *client, id wire.ID) *surface { return cl.objects[id].data.(*surface) }

func createSurface(cl *client, _ *object, m wire.Message) error {
	var a proto.WlCompositorCreateSurfaceRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := &surface{id: wire.ID(a.Id)}
	s.pending.Surface = uint32(a.Id)
	s.pending.Source = [4]float64{-1, -1, -1, -1}
	s.pending.Dest, s.pending.Scale = [2]int32{-1, -1}, 1
	cl.objects[s.id].data = s
	return nil
}

func attach(cl *client, o *object, m wire.Message) error {
	var a proto.WlSurfaceAttachRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := o.data.(*surface)
	s.pending.Attached, s.pending.Buffer = true, nil
	if a.Buffer != 0 {
		s.pending.Buffer = cl.objects[wire.ID(a.Buffer)].data.(*Buffer)
	}
	return nil
}

func damageBuffer(_ *client, o *object, m wire.Message) error {
	var a proto.WlSurfaceDamageBufferRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := o.data.(*surface)
	s.pending.Damage = append(s.pending.Damage, rect(a.X, a.Y, a.Width, a.Height))
	return nil
}

// damageSurface notes damage in surface coordinates, which may lie anywhere.
func damageSurface(_ *client, o *object, m wire.Message) error {
	var a proto.WlSurfaceDamageRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	o.data.(*surface).pending.OnSurface = true
	return nil
}

func surfaceFrame(_ *client, o *object, m wire.Message) error {
	var a proto.WlSurfaceFrameRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := o.data.(*surface)
	s.pending.Frame = true
	s.frames = append(s.frames, wire.ID(a.Callback))
	return nil
}

func setOpaque(cl *client, o *object, m wire.Message) error {
	var a proto.WlSurfaceSetOpaqueRegionRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := o.data.(*surface)
	s.pending.Opaque = display.Rect{}
	if a.Region != 0 {
		s.pending.Opaque = cl.objects[wire.ID(a.Region)].data.(*region).rect
	}
	return nil
}

func setTransform(_ *client, o *object, m wire.Message) error {
	var a proto.WlSurfaceSetBufferTransformRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	o.data.(*surface).pending.Transform = a.Transform
	return nil
}

// commit applies the pending state and answers it.
func commit(cl *client, o *object, _ wire.Message) error {
	s := o.data.(*surface)
	k := s.pending
	if err := cl.checkCommit(s, &k); err != nil {
		return err
	}
	if err := cl.applySync(s, &k); err != nil {
		return err
	}
	k.Pixel = k.Buffer.firstPixel()
	s.pending.Attached, s.pending.Damage, s.pending.Frame, s.pending.OnSurface = false, nil, false, false
	if s.parent != nil {
		k.Attached = k.Attached || (s.cached != nil && s.cached.Attached)
		s.cached = &k
		return nil
	}
	cl.apply(s, k)
	for _, child := range s.children {
		if child.cached != nil {
			cl.apply(child, *child.cached)
			child.cached = nil
		}
		if child.now.Buffer != nil {
			k.Children = append(k.Children, Child{child.x, child.y, child.now.Buffer, child.now.Source, child.now.Dest, child.below, child.now.Pixel})
		}
	}
	cl.c.mu.Lock()
	cl.c.commits = append(cl.c.commits, k)
	cl.c.mu.Unlock()
	if s.toplevel != 0 && !s.asked {
		s.asked = true
		cl.sendScale(s)
		if !cl.c.cfg.HoldConfigure {
			cl.configure(s)
		}
	}
	cl.present(s)
	cl.callbacks = append(cl.callbacks, s.frames...)
	s.frames = nil
	if !cl.c.cfg.HoldFrames {
		for _, id := range cl.callbacks {
			cl.done(id)
		}
		cl.callbacks = nil
	}
	return nil
}

// apply makes k the surface's content and lets go of what it replaces.
func (cl *client) apply(s *surface, k Commit) {
	old := s.now.Buffer
	s.now = k
	if k.Attached && old != nil && old != k.Buffer {
		cl.release(old)
	}
	if k.Attached && k.Buffer != nil && k.Buffer.Shm && cl.c.cfg.EarlyRelease {
		cl.release(k.Buffer)
	}
}

func (cl *client) checkCommit(s *surface, k *Commit) error {
	if k.Buffer == nil {
		return nil
	}
	if s.xdg != 0 && !s.acked {
		return fmt.Errorf("a buffer was committed before a configure was acknowledged")
	}
	if k.Buffer.destroyed && k.Attached {
		return fmt.Errorf("buffer %d was destroyed before the commit", k.Buffer.ID)
	}
	bounds := rect(0, 0, k.Buffer.W, k.Buffer.H)
	for _, d := range k.Damage {
		if d.Intersect(bounds) != d || d.Empty() {
			return fmt.Errorf("damage %v lies outside the buffer of %dx%d", d, k.Buffer.W, k.Buffer.H)
		}
	}
	if k.Buffer.W%k.Scale != 0 || k.Buffer.H%k.Scale != 0 {
		return fmt.Errorf("buffer of %dx%d with scale %d", k.Buffer.W, k.Buffer.H, k.Scale)
	}
	if k.Source[2] >= 0 && (k.Source[0]+k.Source[2] > float64(k.Buffer.W) || k.Source[1]+k.Source[3] > float64(k.Buffer.H)) {
		return fmt.Errorf("viewport source %v lies outside the buffer of %dx%d", k.Source, k.Buffer.W, k.Buffer.H)
	}
	return nil
}

func (cl *client) release(b *Buffer) {
	if cl.c.cfg.HoldReleases {
		cl.held = append(cl.held, b)
		return
	}
	cl.sendRelease(b)
}

func (cl *client) sendRelease(b *Buffer) {
	if r := b.release; r != nil {
		b.release = nil
		b.Released++
		if err := r.tl.Signal(r.point); err != nil {
			cl.c.violation("signal point %d: %v", r.point, err)
		}
		return
	}
	if b.destroyed {
		return
	}
	b.Released++
	proto.WlBuffer(b.ID).SendRelease(cl.out())
}

// destroySurface releases what the surface showed.
func destroySurface(cl *client, o *object, _ wire.Message) error {
	s := o.data.(*surface)
	if s.xdg != 0 {
		return fmt.Errorf("the surface is destroyed before its xdg_surface")
	}
	if s.now.Buffer != nil {
		cl.release(s.now.Buffer)
	}
	if p := s.parent; p != nil {
		p.children = slices.DeleteFunc(p.children, func(x *surface) bool { return x == s })
	}
	for _, id := range s.frames {
		if cb := cl.objects[id]; cb != nil {
			cl.destroy(cb)
		}
	}
	return nil
}

// role is the data of an object that belongs to a surface.
type role struct{ s *surface }

func getXdgSurface(cl *client, _ *object, m wire.Message) error {
	var a proto.XdgWmBaseGetXdgSurfaceRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := of(cl, wire.ID(a.Surface))
	s.xdg = wire.ID(a.Id)
	cl.objects[s.xdg].data = role{s}
	return nil
}

func getToplevel(cl *client, o *object, m wire.Message) error {
	var a proto.XdgSurfaceGetToplevelRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := o.data.(role).s
	s.toplevel = wire.ID(a.Id)
	s.pending.Role = "toplevel"
	cl.objects[s.toplevel].data = role{s}
	return nil
}

func (cl *client) configure(s *surface) { cl.configureSize(s, 0, 0) }

func (cl *client) configureSize(s *surface, w, h int32, states ...proto.XdgToplevelState) {
	cl.serial++
	s.serial = cl.serial
	var list []byte
	for _, state := range states {
		list = binary.LittleEndian.AppendUint32(list, uint32(state))
	}
	proto.XdgToplevel(s.toplevel).SendConfigure(cl.out(), w, h, list)
	proto.XdgSurface(s.xdg).SendConfigure(cl.out(), s.serial)
}

func ackConfigure(_ *client, o *object, m wire.Message) error {
	var a proto.XdgSurfaceAckConfigureRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := o.data.(role).s
	if a.Serial == 0 || a.Serial > s.serial {
		return fmt.Errorf("serial %d, the last configure was %d", a.Serial, s.serial)
	}
	s.acked = true
	return nil
}

func setGeometry(_ *client, o *object, m wire.Message) error {
	var a proto.XdgSurfaceSetWindowGeometryRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	if a.Width <= 0 || a.Height <= 0 {
		return fmt.Errorf("geometry of %dx%d", a.Width, a.Height)
	}
	o.data.(role).s.pending.Geometry = Geometry{a.X, a.Y, a.Width, a.Height}
	return nil
}

func setTitle(_ *client, o *object, m wire.Message) error {
	var a proto.XdgToplevelSetTitleRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	o.data.(role).s.pending.Title = a.Title
	return nil
}

func setAppID(_ *client, o *object, m wire.Message) error {
	var a proto.XdgToplevelSetAppIdRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	o.data.(role).s.pending.AppID = a.AppId
	return nil
}

func setMin(_ *client, o *object, m wire.Message) error {
	var a proto.XdgToplevelSetMinSizeRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	k := &o.data.(role).s.pending
	k.MinW, k.MinH = a.Width, a.Height
	return nil
}

func setMax(_ *client, o *object, m wire.Message) error {
	var a proto.XdgToplevelSetMaxSizeRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	k := &o.data.(role).s.pending
	k.MaxW, k.MaxH = a.Width, a.Height
	return nil
}

func destroyToplevel(_ *client, o *object, _ wire.Message) error {
	s := o.data.(role).s
	s.toplevel, s.xdg = 0, 0
	return nil
}

func getDecoration(cl *client, _ *object, m wire.Message) error {
	var a proto.ZxdgDecorationManagerV1GetToplevelDecorationRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	if s := cl.objects[wire.ID(a.Toplevel)].data.(role).s; s.now.Buffer != nil {
		return fmt.Errorf("the toplevel has a buffer already")
	}
	return nil
}

func getSubsurface(cl *client, _ *object, m wire.Message) error {
	var a proto.WlSubcompositorGetSubsurfaceRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := of(cl, wire.ID(a.Surface))
	s.sub = wire.ID(a.Id)
	s.pending.Role = "subsurface"
	s.parent = of(cl, wire.ID(a.Parent))
	s.parent.children = append(s.parent.children, s)
	cl.objects[s.sub].data = role{s}
	return nil
}

// setPosition takes effect with the parent's next commit, where it is read.
func setPosition(_ *client, o *object, m wire.Message) error {
	var a proto.WlSubsurfaceSetPositionRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := o.data.(role).s
	s.x, s.y = a.X, a.Y
	return nil
}

func getViewport(cl *client, _ *object, m wire.Message) error {
	var a proto.WpViewporterGetViewportRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	cl.objects[wire.ID(a.Id)].data = role{of(cl, wire.ID(a.Surface))}
	return nil
}

func setSource(_ *client, o *object, m wire.Message) error {
	var a proto.WpViewportSetSourceRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	o.data.(role).s.pending.Source = [4]float64{a.X.Float(), a.Y.Float(), a.Width.Float(), a.Height.Float()}
	return nil
}

func setDestination(_ *client, o *object, m wire.Message) error {
	var a proto.WpViewportSetDestinationRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	if unset := a.Width == -1 && a.Height == -1; !unset && (a.Width <= 0 || a.Height <= 0) {
		return fmt.Errorf("destination of %dx%d", a.Width, a.Height)
	}
	o.data.(role).s.pending.Dest = [2]int32{a.Width, a.Height}
	return nil
}

func setBufferScale(_ *client, o *object, m wire.Message) error {
	var a proto.WlSurfaceSetBufferScaleRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	if a.Scale < 1 {
		return fmt.Errorf("buffer scale %d", a.Scale)
	}
	o.data.(*surface).pending.Scale = a.Scale
	return nil
}

func setFullscreen(_ *client, o *object, _ wire.Message) error {
	o.data.(role).s.pending.Full = true
	return nil
}

func placeBelow(_ *client, o *object, m wire.Message) error {
	var a proto.WlSubsurfacePlaceBelowRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := o.data.(role).s
	if wire.ID(a.Sibling) != s.parent.id {
		return fmt.Errorf("surface %d is not the parent", a.Sibling)
	}
	s.below = true
	return nil
}

func getFractional(cl *client, _ *object, m wire.Message) error {
	var a proto.WpFractionalScaleManagerV1GetFractionalScaleRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	of(cl, wire.ID(a.Surface)).fractional = a.Id
	a.Id.SendPreferredScale(cl.out(), cl.c.cfg.Fractional)
	return nil
}

// sendScale tells a surface its scale by every means that it has but the output,
// which tells it by itself.
func (cl *client) sendScale(s *surface) {
	if s.fractional != 0 {
		s.fractional.SendPreferredScale(cl.out(), cl.c.cfg.Fractional)
	}
	if scale := cl.c.cfg.Scale; scale != 0 {
		if cl.objects[s.id].version >= 6 {
			proto.WlSurface(s.id).SendPreferredBufferScale(cl.out(), scale)
		}
		if cl.output != 0 {
			proto.WlSurface(s.id).SendEnter(cl.out(), cl.output)
		}
	}
}

package broker

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl"
)

// ownIDs is where the ids begin that the broker itself gives to contexts and resources of
// clients that are no guest. Where there are such clients a guest's end below. (Linux
// counts from 1.)
const ownIDs = 1 << 31

// rendererShare lets two devices use the one renderer of the process: each has a view of
// it with a range of ids, and neither can touch what the other has. Render thread only.
type rendererShare struct {
	base virgl.Renderer
	low  *rendererView // of the guest
	high *rendererView // of the vtest clients
}

// newRendererShare splits base. The relays are those of the devices; base's fences go to
// the share's signal.
func newRendererShare(base virgl.Renderer, guest, vtest *FenceRelay) *rendererShare {
	s := &rendererShare{base: base}
	s.low = newRendererView(base, 0, guest)
	s.high = newRendererView(base, ownIDs, vtest)
	return s
}

// signal is the base renderer's virgl.Fences.
func (s *rendererShare) signal(ctx, id uint32) {
	v := s.low
	if ctx >= ownIDs {
		v = s.high
	}
	v.signal(ctx, id)
}

// rendererView is a renderer of one of the two.
type rendererView struct {
	virgl.Renderer // what needs no other way
	from           uint32
	relay          *FenceRelay
	contexts       map[uint32]struct{}
	resources      map[uint32]struct{}
	pending        int    // fences not signalled yet
	last, dead     uint32 // fence made last, and last before Reset
	blobs          virgl.BlobRenderer
	bytes          virgl.ByteTransferrer
}

var (
	_ virgl.BlobRenderer    = (*rendererView)(nil)
	_ virgl.ByteTransferrer = (*rendererView)(nil)
)

func newRendererView(base virgl.Renderer, from uint32, relay *FenceRelay) *rendererView {
	v := &rendererView{Renderer: base, from: from, relay: relay, contexts: map[uint32]struct{}{}, resources: map[uint32]struct{}{}}
	v.blobs, _ = base.(virgl.BlobRenderer)
	v.bytes, _ = base.(virgl.ByteTransferrer)
	return v
}

// check refuses ids of the other view.
func (v *rendererView) check(what string, id uint32) error {
	if id&ownIDs != v.from {
		return &OpError{Op: "create", Object: fmt.Sprintf("%s %d", what, id), Err: fmt.Errorf("%w: ids from %d on are the broker's own", virgl.ErrInvalid, uint32(ownIDs))}
	}
	return nil
}

func (v *rendererView) CreateContext(ctx, init uint32, name string) error {
	if err := v.check("context", ctx); err != nil {
		return err
	}
	if err := v.Renderer.CreateContext(ctx, init, name); err != nil {
		return err
	}
	v.contexts[ctx] = struct{}{}
	return nil
}

func (v *rendererView) DestroyContext(ctx uint32) {
	delete(v.contexts, ctx)
	v.Renderer.DestroyContext(ctx)
}

func (v *rendererView) CreateResource(a *virgl.ResourceArgs) error {
	if err := v.check("resource", a.ID); err != nil {
		return err
	}
	if err := v.Renderer.CreateResource(a); err != nil {
		return err
	}
	v.resources[a.ID] = struct{}{}
	return nil
}

func (v *rendererView) UnrefResource(res uint32) {
	delete(v.resources, res)
	v.Renderer.UnrefResource(res)
}

func (v *rendererView) CreateBlob(a *virgl.BlobArgs, segs [][]byte) error {
	if err := v.check("blob", a.ID); err != nil {
		return err
	}
	if v.blobs == nil {
		return &OpError{Op: "create", Object: fmt.Sprintf("blob %d", a.ID), Err: virgl.ErrNotSupported}
	}
	if err := v.blobs.CreateBlob(a, segs); err != nil {
		return err
	}
	v.resources[a.ID] = struct{}{}
	return nil
}

func (v *rendererView) ExportBlob(res uint32) (*dmabuf.FD, uint32, error) {
	if v.blobs == nil {
		return nil, 0, &OpError{Op: "export", Object: fmt.Sprintf("blob %d", res), Err: virgl.ErrNotSupported}
	}
	return v.blobs.ExportBlob(res)
}

func (v *rendererView) WriteBytes(t *virgl.Transfer, data []byte) error {
	if v.bytes == nil {
		return &OpError{Op: "write", Object: fmt.Sprintf("resource %d", t.Resource), Err: virgl.ErrNotSupported}
	}
	return v.bytes.WriteBytes(t, data)
}

func (v *rendererView) ReadBytes(t *virgl.Transfer, data []byte) error {
	if v.bytes == nil {
		return &OpError{Op: "read", Object: fmt.Sprintf("resource %d", t.Resource), Err: virgl.ErrNotSupported}
	}
	return v.bytes.ReadBytes(t, data)
}

func (v *rendererView) CreateFence(ctx, id uint32) error {
	v.last = id
	v.pending++
	err := v.Renderer.CreateFence(ctx, id)
	if err != nil {
		v.pending--
	}
	return err
}

// signal passes a fence on, unless it is from before a reset.
func (v *rendererView) signal(ctx, id uint32) {
	v.pending = max(v.pending-1, 0)
	if v.dead == 0 || int32(id-v.dead) > 0 {
		v.relay.Signal(ctx, id)
	}
}

// PollFD gives the descriptor to the guest's device alone; its Poll serves both.
func (v *rendererView) PollFD() int {
	if v.from != 0 {
		return -1
	}
	return v.Renderer.PollFD()
}

func (v *rendererView) Stats() virgl.Stats {
	return virgl.Stats{Contexts: len(v.contexts), Resources: len(v.resources), FencesPending: v.pending}
}

// Reset destroys what this view has.
func (v *rendererView) Reset() {
	for _, id := range slices.Collect(maps.Keys(v.contexts)) {
		v.DestroyContext(id)
	}
	for _, id := range slices.Collect(maps.Keys(v.resources)) {
		v.UnrefResource(id)
	}
	v.dead, v.pending = v.last, 0
}

// Close does nothing: the renderer is not the view's.
func (v *rendererView) Close() error { return nil }

package virgl

import "github.com/gpubroker/gpubroker/dmabuf"

// none is the renderer of a broker that serves 2D only.
type none struct{ fence Fences }

var _ Renderer = none{}

// None returns a renderer that cannot render: Info.GL is false and every call
// that makes a context or a resource returns [ErrNotSupported]. Its fences signal
// at once, because nothing is ever in flight.
func None(onFence Fences) Renderer {
	if onFence == nil {
		onFence = func(uint32, uint32) {}
	}
	return none{fence: onFence}
}

func (none) Info() Info { return Info{Library: "none"} }

func (none) FillCapset(_, _ uint32, _ []byte) error {
	return opErr("fill capset", "", ErrNotSupported)
}

func (none) CreateContext(ctx, _ uint32, _ string) error {
	return ctxErr("create", ctx, ErrNotSupported)
}
func (none) DestroyContext(uint32)      {}
func (none) AttachResource(_, _ uint32) {}
func (none) DetachResource(_, _ uint32) {}
func (none) UnrefResource(uint32)       {}
func (none) DetachBacking(uint32)       {}
func (none) CreateResource(a *ResourceArgs) error {
	return resErr("create", a.ID, ErrNotSupported)
}

func (none) AttachBacking(res uint32, _ [][]byte) error {
	return resErr("attach backing to", res, ErrNotSupported)
}

func (none) TransferToHost(t *Transfer) error {
	return resErr("transfer to", t.Resource, ErrNotSupported)
}

func (none) TransferFromHost(t *Transfer) error {
	return resErr("transfer from", t.Resource, ErrNotSupported)
}

func (none) Submit(ctx uint32, _ []byte) error {
	return ctxErr("submit", ctx, ErrNotSupported)
}

func (none) ReadPixels(res uint32, _, _, _, _, _ uint32, _ []byte) error {
	return resErr("read", res, ErrNotSupported)
}

func (none) Export(res uint32) (*dmabuf.Buffer, error) {
	return nil, resErr("export", res, ErrNotSupported)
}

func (n none) CreateFence(ctx, id uint32) error {
	n.fence(ctx, id)
	return nil
}

func (none) PollFD() int  { return -1 }
func (none) Poll()        {}
func (none) Stats() Stats { return Stats{} }
func (none) Reset()       {}
func (none) Close() error { return nil }

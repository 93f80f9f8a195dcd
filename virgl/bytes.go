package virgl

import (
	"fmt"

	"github.com/gpubroker/gpubroker/virgl/dl"
)

// ByteTransferrer is a Renderer whose transfers can name bytes of ours instead of a
// resource's backing. Called on the render thread; data is not kept.
type ByteTransferrer interface {
	Renderer
	// WriteBytes is TransferToHost from data, ReadBytes is TransferFromHost into it.
	// Transfer.Offset counts from its start.
	WriteBytes(t *Transfer, data []byte) error
	ReadBytes(t *Transfer, data []byte) error
}

var _ ByteTransferrer = (*renderer)(nil)

// WriteBytes implements ByteTransferrer.
func (r *renderer) WriteBytes(t *Transfer, data []byte) error {
	err := r.transferBytes(r.lib.transferWriteIOV, t, data)
	if err != nil {
		return resErr("write to", t.Resource, err)
	}
	r.worked(t.Ctx)
	return nil
}

// ReadBytes implements ByteTransferrer. The same as of TransferFromHost is true of it.
func (r *renderer) ReadBytes(t *Transfer, data []byte) error {
	if err := r.transferBytes(r.lib.transferReadIOV, t, data); err != nil {
		return resErr("read from", t.Resource, err)
	}
	return nil
}

func (r *renderer) transferBytes(fn uintptr, t *Transfer, data []byte) error {
	r.check()
	if err := r.checkTransfer(t); err != nil {
		return err
	}
	if len(data) == 0 {
		return fmt.Errorf("%w: 0 bytes", ErrInvalid)
	}
	r.leave(t.Ctx)
	r.pin.Pin(&data[0])
	putIOVec(r.scratch[scratchIOV:], data)
	rc := r.transfer(fn, t, dl.Addr(r.scratch)+scratchIOV, 1)
	r.pin.Unpin()
	return result(rc)
}

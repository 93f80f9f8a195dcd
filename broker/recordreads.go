package broker

import (
	"encoding/binary"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/virgl"
)

// recordReads writes the memory that a command is about to read. The command is not
// checked yet: what makes no sense reads nothing, or a little too much.
func (d *Device) recordReads(r *request) {
	switch r.hdr.Type {
	case virtiogpu.CmdTransferToHost2D:
		var c virtiogpu.TransferToHost2D
		if c.Decode(r.body) == nil {
			if res := d.resources[c.ResourceID]; res != nil && res.blob == nil {
				d.rec.lent(res.backing, c.Offset, boxBytes(res, 0, 0, 0, virgl.Box{W: c.R.Width, H: c.R.Height, D: 1}))
			}
		}
	case virtiogpu.CmdTransferToHost3D, virtiogpu.CmdTransferFromHost3D:
		var c virtiogpu.TransferHost3D
		if c.Decode(r.body) == nil {
			t := d.rec.lent
			if r.hdr.Type == virtiogpu.CmdTransferFromHost3D {
				t = d.rec.forget
			}
			if res := d.resources[c.ResourceID]; res != nil {
				t(res.backing, c.Offset, boxBytes(res, c.Level, c.Stride, c.LayerStride, virgl.Box(c.Box)))
			}
		}
	case virtiogpu.CmdSubmit3D:
		var c virtiogpu.Submit3D
		if c.Decode(r.body) == nil && d.contexts[r.hdr.CtxID] != nil && d.contexts[r.hdr.CtxID].cross == nil {
			if stream, err := c.Stream(r.body); err == nil {
				d.recordStream(stream)
			}
		}
	case virtiogpu.CmdCtxAttachResource: // promote
		var c virtiogpu.CtxResource
		if c.Decode(r.body) == nil {
			if res := d.resources[c.ResourceID]; res != nil && res.kind == kind2D {
				d.rec.lent(res.backing, 0, uint64(res.args.Width)*uint64(res.args.Height)*4)
			}
		}
	case virtiogpu.CmdResourceFlush:
		var c virtiogpu.ResourceFlush
		if c.Decode(r.body) == nil {
			if res := d.resources[c.ResourceID]; res != nil && res.blob != nil && !res.blob.drawn {
				d.recordPictures(res)
			}
		}
	}
}

// recordPictures writes what heads show of a blob. The guest flushes what has changed
// since the last frame, which was perhaps another blob's, so it is the whole picture.
func (d *Device) recordPictures(res *resource) {
	for _, p := range res.pics {
		if p.heads == 0 {
			continue
		}
		off, n := uint64(p.layout.offsets[0]), uint64(p.layout.strides[0])*uint64(p.layout.h)
		if res.backing != nil {
			d.rec.lent(res.backing, off, n)
			continue
		}
		segs, err := res.segments()
		if err != nil || !res.blob.memfd || off >= res.blob.size {
			continue
		}
		if res.seen == nil {
			res.seen = map[uint64]uint64{}
		}
		end := off + min(n, res.blob.size-off)
		off, end = off&^pageMask, min((end+pageMask)&^pageMask, uint64(len(segs[0])))
		d.rec.pages(res.seen, off, segs[0][off:end], func(at uint64, data []byte) { d.rec.w.Blob(res.id, at, data) })
	}
}

// The virgl commands that move bytes between a backing and the host (virgl_protocol.h),
// their lengths in words of four bytes, and their words, the header's being 0.
const (
	streamTransfer     = 43
	streamTransferSize = 13
	streamCopy         = 45
	streamCopySize     = 14

	streamResource    = 1
	streamLevel       = 2
	streamStride      = 4
	streamLayerStride = 5
	streamBox         = 6
	streamOffset      = 12 // of a transfer, in the resource's own backing
	streamDirection   = 13
	streamFromHost    = 2
	streamStaging     = 12 // of a copy: whose backing it is
	streamCopyOffset  = 13
	streamCopyFlags   = 14
	streamCopyRead    = 1 << 1
)

// recordStream writes what the transfers in a stream of virgl commands read: Mesa puts
// most of them there.
func (d *Device) recordStream(stream []byte) {
	for at := 0; at+4 <= len(stream); {
		h := binary.LittleEndian.Uint32(stream[at:])
		cmd := stream[at:]
		if next := 4 + 4*int(h>>16); next <= len(cmd) {
			cmd = cmd[:next]
		} else {
			return
		}
		at += len(cmd)
		switch word := func(i int) uint32 { return binary.LittleEndian.Uint32(cmd[4*i:]) }; {
		case h&0xff == streamTransfer && h>>16 == streamTransferSize:
			if res := d.resources[word(streamResource)]; res != nil {
				d.recordTransfer(res, res, word, streamOffset, word(streamDirection) == streamFromHost)
			}
		case h&0xff == streamCopy && h>>16 == streamCopySize:
			if res, staging := d.resources[word(streamResource)], d.resources[word(streamStaging)]; res != nil && staging != nil {
				d.recordTransfer(res, staging, word, streamCopyOffset, word(streamCopyFlags)&streamCopyRead != 0)
			}
		}
	}
}

func (d *Device) recordTransfer(res, backed *resource, word func(int) uint32, offset int, fromHost bool) {
	box := virgl.Box{X: word(streamBox), Y: word(streamBox + 1), Z: word(streamBox + 2), W: word(streamBox + 3), H: word(streamBox + 4), D: word(streamBox + 5)}
	n := boxBytes(res, word(streamLevel), word(streamStride), word(streamLayerStride), box)
	if fromHost {
		d.rec.forget(backed.backing, uint64(word(offset)), n)
		return
	}
	d.rec.lent(backed.backing, uint64(word(offset)), n)
}

// mostTexel is the most bytes that a texel, or a block of some, has in any format.
const mostTexel = 16

// boxBytes is how many bytes a transfer of a box takes in the backing, from its offset on;
// more where the format is none that a scanout shows.
func boxBytes(res *resource, level, stride, layerStride uint32, box virgl.Box) uint64 {
	if box.W == 0 || box.H == 0 || box.D == 0 {
		return 0
	}
	a := &res.args
	texel := uint64(mostTexel)
	switch {
	case res.blob == nil && a.Target == targetBuffer:
		return uint64(box.W)
	case res.fourcc != 0:
		texel = 4
	}
	row, layer := uint64(stride), uint64(layerStride)
	if row == 0 && res.blob != nil {
		return res.blob.size // nothing says how wide it is
	}
	if row == 0 {
		row = texel * uint64(max(1, a.Width>>level))
	}
	if layer == 0 {
		layer = times(row, uint64(max(1, a.Height>>level, box.H)))
	}
	return times(uint64(box.D-1), layer) + times(uint64(box.H-1), row) + texel*uint64(box.W)
}

// times multiplies, up to more than any memory has.
func times(a, b uint64) uint64 {
	const most = 1 << 60
	if a != 0 && b > most/a {
		return most
	}
	return a * b
}

package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/virtq"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// errLost is why a command was not carried out: the renderer died over it.
var errLost = errors.New("the renderer died over it")

// Restore makes the resources again that the process before kept, and shows what heads
// showed. It implements vhostuser.Restorer.
func (d *Device) Restore() {
	made, lost := 0, 0
	d.restoring = true // what is kept is kept already
	defer func() { d.restoring = false }()
	for _, e := range d.cfg.Keep.Take() {
		if !strings.HasPrefix(e.Key, "resource ") {
			_ = e.FD.Close()
			continue
		}
		if err := d.restoreResource(e); err != nil {
			lost++
			d.cfg.Keep.Drop(e.Key)
			d.quiet.warn(d.log, "a resource is lost", zap.String("what", e.Key), zap.Error(err))
			continue
		}
		made++
	}
	for head := range d.cfg.Heads {
		d.restoreHead(head)
	}
	d.log.Info("took a VM over", zap.Int("resources", made), zap.Int("lost", lost))
}

// restoreHead shows again what a head showed: nothing, if the renderer had drawn it.
func (d *Device) restoreHead(head int) {
	if d.cfg.Page == nil {
		return
	}
	picture, pointer := d.cfg.Page.Head(head), d.cfg.Page.Cursor(head)
	if picture != nil {
		if err := d.replay(picture); err != nil {
			d.cfg.Page.SetHead(head, nil)
			d.log.Info("a head does not show what it showed", zap.Int("head", head), zap.Error(err))
		}
	}
	if pointer != nil {
		if err := d.replay(pointer); err != nil {
			d.cfg.Page.SetCursor(head, nil)
			d.log.Info("a pointer is lost", zap.Int("head", head), zap.Error(err))
		}
	}
	if s := &d.scanouts[head]; s.pic != nil {
		s.serial++
		d.show(head, s.rect, monotonic())
	}
}

// replay serves a command whose answer nobody waits for.
func (d *Device) replay(cmd []byte) error {
	r := &request{body: cmd}
	if err := r.hdr.Decode(cmd); err != nil {
		return err
	}
	if virtiogpu.Lookup(r.hdr.Type) == nil {
		return fmt.Errorf("%w: kept command %#x", virtiogpu.ErrUnspec, uint32(r.hdr.Type))
	}
	return d.dispatch(r)
}

// restoreResource takes the entry's descriptor over.
func (d *Device) restoreResource(e keep.Entry) (err error) {
	fd := e.FD
	defer func() { _ = fd.Close() }() // unless it was taken
	var k keptResource
	if err := json.Unmarshal(e.Value, &k); err != nil {
		return err
	}
	var hdr virtiogpu.CtrlHdr
	if err := hdr.Decode(k.Create); err != nil {
		return err
	}
	var id uint32
	switch hdr.Type {
	case virtiogpu.CmdResourceCreate2D:
		var c virtiogpu.ResourceCreate2D
		if err := c.Decode(k.Create); err != nil {
			return err
		}
		id = c.ResourceID
		if err := d.replay(k.Create); err != nil {
			return err
		}
	case virtiogpu.CmdResourceCreateBlob:
		if id, err = d.restoreBlob(&k, fd); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: a resource of %v", virtiogpu.ErrUnspec, hdr.Type)
	}
	res := d.resources[id]
	res.create, res.attach = k.Create, k.Attach
	if len(k.UUID) == len(res.uuid) {
		res.hasUUID = true
		copy(res.uuid[:], k.UUID)
	}
	if res.kind == kind2D {
		fresh := d.adopt2D(res, fd)
		if k.Attach != nil {
			if err := d.replay(k.Attach); err != nil {
				res.attach = nil
				d.quiet.warn(d.log, "a resource has lost its backing", zap.Uint32("resource", id), zap.Error(err))
			}
		}
		if fresh {
			d.upload(res)
			d.restoring = false
			d.keepResource(res)
			d.restoring = true
		}
	}
	return nil
}

// adopt2D gives a 2D resource the pixels that were kept. fresh says that there were
// none: the renderer or its allocator had them.
func (d *Device) adopt2D(res *resource, fd *dmabuf.FD) (fresh bool) {
	if fd == nil {
		return true
	}
	dup, err := fd.Dup()
	if err == nil {
		var buf *dmabuf.Buffer
		if buf, err = shmfallback.Adopt(dup, res.args.Width, res.args.Height, res.buf.Fourcc, fmt.Sprintf("resource %d", res.id)); err == nil {
			res.buf.Release()
			res.buf = buf
			return false
		}
	}
	d.quiet.warn(d.log, "pixels are lost", zap.Uint32("resource", res.id), zap.Error(err))
	return true
}

// upload fills a 2D resource from its backing, which holds its newest pixels.
func (d *Device) upload(res *resource) {
	w, h := res.args.Width, res.args.Height
	if res.backing == nil || res.backing.Size < uint64(w)*uint64(h)*4 {
		return
	}
	if err := d.upload2D(res, display.Rect{W: w, H: h}, 0); err != nil {
		d.quiet.warn(d.log, "pixels are lost", zap.Uint32("resource", res.id), zap.Error(err))
	}
}

// restoreBlob makes a blob of guest pages or of kept memory. One whose memory is lost
// exists all the same, so that the guest can unmap it and give it up.
func (d *Device) restoreBlob(k *keptResource, fd *dmabuf.FD) (uint32, error) {
	var c virtiogpu.ResourceCreateBlob
	if err := c.Decode(k.Create); err != nil {
		return 0, err
	}
	if err := d.checkNew(c.ResourceID); err != nil {
		return 0, err
	}
	res := &resource{id: c.ResourceID, kind: kindBlob, blob: &blob{mem: c.BlobMem, flags: c.BlobFlags, size: c.Size}}
	res.args.ID = c.ResourceID
	if err := d.admit(res); err != nil {
		return 0, err
	}
	var err error
	b := res.blob
	if c.BlobMem != virtiogpu.BlobMemHost3D {
		if res.backing, err = d.blobBacking(&c, k.Create); err != nil {
			return 0, err
		}
	}
	b.exported, b.readOnly, b.mapInfo = true, k.ReadOnly, k.MapInfo
	if fd != nil {
		if b.host, err = fd.Dup(); err != nil {
			return 0, err
		}
		b.memfd = !isDMABuf(fd)
	} else if c.BlobMem != virtiogpu.BlobMemGuest {
		b.hostErr = errLost
	}
	if k.Mapped {
		if b.place, err = d.window.place(k.Offset, c.Size); err != nil {
			d.quiet.warn(d.log, "a blob is not mapped any more", zap.Uint32("resource", res.id), zap.Error(err))
			b.place = nil
		} else {
			b.place.readOnly = k.ReadOnly
		}
	}
	d.resources[res.id] = res
	return res.id, nil
}

// inherit gives back what the process before had taken from a ring: with its answer if
// there was one, else served again, or with an error if it was the renderer's.
func (d *Device) inherit(q *virtq.Queue, kind virtiogpu.QueueKind) {
	list := q.Inherited()
	for _, f := range list {
		if f.Answered {
			d.ringOK(q.Push(f.Head, f.Written))
			continue
		}
		if err := q.Inherit(&d.chain, f.Head); err != nil {
			d.ringOK(q.Push(f.Head, 0))
			continue
		}
		d.serveAgain(q, kind, f.Seq)
	}
	if len(list) > 0 {
		d.log.Info("commands in flight were completed", zap.Int("queue", int(kind)), zap.Int("commands", len(list)))
	}
}

// serveAgain serves the command in d.chain, whose first try ended with the process.
func (d *Device) serveAgain(q *virtq.Queue, kind virtiogpu.QueueKind, seq uint32) {
	c, r := &d.chain, &d.req
	*r = request{again: true}
	err := d.fetch(r, c, kind)
	switch {
	case err != nil:
	case ofRenderer(r.hdr.Type):
		err = fmt.Errorf("%w: %w", virtiogpu.ErrInvalidContext, errLost)
	case d.cfg.Page.Retry(uint64(seq)<<16 | uint64(kind)<<15 | uint64(c.Head)):
		err = fmt.Errorf("%w: %w, and again", virtiogpu.ErrUnspec, errLost)
	default:
		d.enter(r)
		if !d.done(r) {
			err = d.dispatch(r)
		}
		d.cfg.Page.Leave()
	}
	d.stats.countCommand(r.hdr.Type)
	if errors.Is(err, errSuspended) {
		return
	}
	written := d.respond(r, c, kind, err)
	if kind == virtiogpu.ControlQueue {
		d.complete(q, r, c.Head, written)
		return
	}
	d.ringOK(q.Push(c.Head, written))
}

// ofRenderer reports whether a command is the renderer's, which may have died of it, and
// whose resources and contexts are gone anyway.
func ofRenderer(t virtiogpu.Type) bool {
	switch t {
	case virtiogpu.CmdCtxCreate, virtiogpu.CmdCtxDestroy, virtiogpu.CmdCtxAttachResource, virtiogpu.CmdCtxDetachResource,
		virtiogpu.CmdResourceCreate3D, virtiogpu.CmdTransferToHost3D, virtiogpu.CmdTransferFromHost3D, virtiogpu.CmdSubmit3D,
		virtiogpu.CmdGetCapset:
		return true
	}
	return false
}

// done reports whether a command that is served again had done its work before the
// process ended; what was half done is undone.
func (d *Device) done(r *request) bool {
	switch r.hdr.Type {
	case virtiogpu.CmdResourceCreate2D, virtiogpu.CmdResourceCreateBlob:
		var c virtiogpu.ResourceUnref // both have the id in the same place
		if c.Decode(r.body) != nil {
			return false
		}
		res := d.resources[c.ResourceID]
		return res != nil && bytes.Equal(res.create, r.body)
	case virtiogpu.CmdResourceAttachBacking:
		var c virtiogpu.ResourceAttachBacking
		if c.Decode(r.body) != nil {
			return false
		}
		res := d.resources[c.ResourceID]
		return res != nil && res.backing != nil && bytes.Equal(res.attach, r.body)
	case virtiogpu.CmdResourceDetachBacking:
		var c virtiogpu.ResourceDetachBacking
		if c.Decode(r.body) != nil {
			return false
		}
		res := d.resources[c.ResourceID]
		return res != nil && res.backing == nil
	case virtiogpu.CmdResourceUnref:
		var c virtiogpu.ResourceUnref
		return c.Decode(r.body) == nil && d.resources[c.ResourceID] == nil
	case virtiogpu.CmdResourceUnmapBlob:
		var c virtiogpu.ResourceUnmapBlob
		if c.Decode(r.body) != nil {
			return false
		}
		res := d.resources[c.ResourceID]
		return res != nil && res.blob != nil && res.blob.place == nil
	case virtiogpu.CmdResourceMapBlob:
		return d.doneMap(r)
	}
	return false
}

// doneMap is done for RESOURCE_MAP_BLOB. The front-end may have the mapping although the
// process did not live to hear of it: then it is taken away, and made again.
func (d *Device) doneMap(r *request) bool {
	var c virtiogpu.ResourceMapBlob
	if c.Decode(r.body) != nil {
		return false
	}
	res := d.resources[c.ResourceID]
	if res == nil || res.blob == nil {
		return false
	}
	if p := res.blob.place; p != nil {
		if p.offset != c.Offset {
			return false
		}
		resp := virtiogpu.MapInfo{CtrlHdr: r.hdr.Reply(virtiogpu.RespOKMapInfo), MapInfo: res.blob.mapInfo & virtiogpu.MapCacheMask}
		d.out = resp.Append(d.out)
		return true
	}
	if d.channel != nil && c.Offset&pageMask == 0 {
		p := placement{offset: c.Offset, size: (res.blob.size + pageMask) &^ pageMask, readOnly: res.blob.readOnly}
		d.channel.Unmap(p.mmap(), func(error) {})
	}
	return false
}

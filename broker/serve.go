package broker

import (
	"errors"
	"fmt"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/virtq"
)

// batch is how many commands one queue may have served before fences, the other
// queue and posted functions get their turn.
const batch = 64

// request is one command while it is being served.
type request struct {
	hdr  virtiogpu.CtrlHdr
	body []byte // the command's bytes, header included, our copy
	// fence, if not 0, is the renderer fence of context fenceCtx that the
	// command's completion waits for when the guest asked for a fence.
	fence    uint32
	fenceCtx uint32
	// serial, if not 0, is the frame of head screen that completion waits for.
	serial uint64
	screen int
	// hold, if not 0, is the number under which a cross-domain context holds the
	// fence back.
	hold uint64
	// again says that a process died over it before.
	again bool
	// number is that of the command in the recording, from 1 on; 0: it is not there.
	number uint64
}

// serve drains a queue. It is the watch of the queue's kick eventfd. It reports
// whether it left something for the next turn.
func (d *Device) serve(u *queue, kind virtiogpu.QueueKind, kicked bool) (more bool) {
	if u.q == nil {
		return false
	}
	if kicked {
		// The eventfd's file description is shared with QEMU: its flags stay as
		// they are, and it is read only when poll reported it.
		var count [8]byte
		_, _ = unix.Read(u.kick.Int(), count[:])
	}
	d.ringOK(u.q.DisableKicks())
	for n := 0; u.q != nil; n++ {
		if n == batch {
			d.cfg.Loop.Again()
			more = true
			break
		}
		ok, err := u.q.Next(&d.chain)
		if err != nil {
			d.stats.RingErrors.Add(1)
			d.quiet.warn(d.log, "bad chain on virtqueue", zap.Int("queue", int(kind)), zap.Error(err))
			if errors.Is(err, guestmem.ErrFault) && !ok {
				return false // the ring's memory is gone: the front-end must restart it
			}
			if ok {
				d.ringOK(u.q.Push(d.chain.Head, 0))
			}
			continue
		}
		if ok {
			d.serveChain(u.q, kind)
			continue
		}
		pending, err := u.q.EnableKicks()
		if !d.ringOK(err) || !pending {
			break
		}
		d.ringOK(u.q.DisableKicks()) // more came in between
	}
	d.ringOK(u.q.Notify())
	if d.rec != nil {
		d.recordIdle()
	}
	return more
}

// ringOK logs an error of the ring itself and reports whether there was none.
func (d *Device) ringOK(err error) bool {
	if err != nil {
		d.stats.RingErrors.Add(1)
		d.quiet.warn(d.log, "virtqueue", zap.Error(err))
	}
	return err == nil
}

// serveChain runs the command in d.chain and completes it, now or when its
// fence signals.
func (d *Device) serveChain(q *virtq.Queue, kind virtiogpu.QueueKind) {
	c, r := &d.chain, &d.req
	*r = request{}
	err := d.fetch(r, c, kind)
	if d.rec != nil {
		d.recordTaken(r, c, kind)
	}
	if err == nil {
		d.enter(r)
		err = d.dispatch(r)
		d.cfg.Page.Leave()
	}
	if len(d.namings) > 0 {
		d.retryNamings()
	}
	d.stats.countCommand(r.hdr.Type)
	if err != nil && errors.Is(err, errSuspended) {
		return
	}
	written := d.respond(r, c, kind, err)
	if kind == virtiogpu.ControlQueue {
		d.complete(q, r, c.Head, written)
		return
	}
	d.ringOK(q.Push(c.Head, written))
}

// complete gives an answered command of the control queue back to the guest, now
// or when its fence and those before it have signalled. Failed commands carry
// their fence too: none overtakes another.
func (d *Device) complete(q *virtq.Queue, r *request, head uint16, written uint32) {
	done := r.serial == 0 && r.hold == 0 && (r.fence == 0 || d.signalled(r.fenceCtx, r.fence))
	if r.hdr.Fenced() {
		if t := d.timelineOf(&r.hdr); !done || !t.empty() {
			t.push(fence{ctx: r.fenceCtx, id: r.fence, head: head, written: written, done: done,
				hold: r.hold, shown: r.serial != 0, screen: r.screen, serial: r.serial})
			q.Answered(head, written)
			return
		}
	}
	d.ringOK(q.Push(head, written))
}

// fetch copies the command out of guest memory, once, and decodes its header.
func (d *Device) fetch(r *request, c *virtq.Chain, kind virtiogpu.QueueKind) error {
	d.out = d.out[:0]
	if c.ReadLen() > virtiogpu.MaxCommandSize {
		d.cmd = d.cmd[:virtiogpu.SizeCtrlHdr]
		if _, err := c.ReadAt(d.cmd, 0); err != nil {
			d.cmd = d.cmd[:0]
		}
		return r.tooLarge(d.cmd, c.ReadLen())
	}
	n := int(c.ReadLen())
	d.growCmd(n)
	if got, err := c.ReadAt(d.cmd, 0); err != nil || got != n {
		d.cmd = d.cmd[:0]
		return fmt.Errorf("%w: read %d of %d bytes from guest memory: %w", virtiogpu.ErrUnspec, got, n, err)
	}
	return r.decode(d.cmd, kind)
}

// growCmd makes room for a command of n bytes.
func (d *Device) growCmd(n int) {
	if cap(d.cmd) < n {
		d.cmd = make([]byte, 0, roundUp(n, 64<<10))
	}
	d.cmd = d.cmd[:n]
}

// tooLarge is the answer to a command of size bytes, of which head is the first part.
func (r *request) tooLarge(head []byte, size uint64) error {
	_ = r.hdr.Decode(head) // it still says whether the guest waits for a fence
	return fmt.Errorf("%w: command of %d bytes, limit %d", virtiogpu.ErrOutOfMemory, size, virtiogpu.MaxCommandSize)
}

// decode takes the command's bytes, which are our copy, and decodes the header.
func (r *request) decode(cmd []byte, kind virtiogpu.QueueKind) error {
	if len(cmd) < virtiogpu.SizeCtrlHdr {
		return fmt.Errorf("%w: command of %d bytes, need %d", virtiogpu.ErrInvalidParameter, len(cmd), virtiogpu.SizeCtrlHdr)
	}
	r.body = cmd
	if err := r.hdr.Decode(cmd); err != nil {
		return err
	}
	c := virtiogpu.Lookup(r.hdr.Type)
	if c == nil || c.Queue != kind {
		return fmt.Errorf("%w: %v on queue %d", virtiogpu.ErrUnspec, r.hdr.Type, kind)
	}
	return nil
}

// answer leaves the response in d.out.
func (d *Device) answer(r *request, err error) {
	if err != nil {
		d.stats.countError(r.hdr.Type)
		d.logFailed(r, err)
		d.out = d.out[:0]
	}
	if len(d.out) == 0 {
		h := r.hdr.Reply(virtiogpu.RespFor(err))
		d.out = h.Append(d.out)
	}
	if d.rec != nil {
		d.recordAnswer(r)
	}
}

// respond writes the response into the chain and returns its length. The used
// entry may come later: until then the driver does not look.
func (d *Device) respond(r *request, c *virtq.Chain, kind virtiogpu.QueueKind, err error) uint32 {
	d.answer(r, err)
	if kind == virtiogpu.CursorQueue && c.WriteLen() == 0 {
		return 0 // Linux gives its cursor commands no room for a response
	}
	if n, werr := c.Write(d.out); werr != nil || n < len(d.out) {
		d.quiet.warn(d.log, "response does not fit", zap.Stringer("command", r.hdr.Type), zap.Int("bytes", len(d.out)),
			zap.Uint64("room", c.WriteLen()), zap.Error(werr))
	}
	return c.Written()
}

// logFailed notes a command that failed; not loudly where Linux is known to send it in
// the ordinary course of things.
func (d *Device) logFailed(r *request, err error) {
	if errors.Is(err, errBlobKeeps) {
		d.log.Debug("command refused", zap.Stringer("command", r.hdr.Type), zap.Error(err))
		return
	}
	d.quiet.warn(d.log, "command failed", zap.Stringer("command", r.hdr.Type), zap.Uint32("ctx", r.hdr.CtxID), zap.Error(err))
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// handlers runs each command; the index is virtiogpu.Type.Index.
var handlers [virtiogpu.NumCommands]func(*Device, *request) error

func init() {
	for t, h := range map[virtiogpu.Type]func(*Device, *request) error{
		virtiogpu.CmdGetDisplayInfo:        (*Device).getDisplayInfo,
		virtiogpu.CmdResourceCreate2D:      (*Device).resourceCreate2D,
		virtiogpu.CmdResourceUnref:         (*Device).resourceUnref,
		virtiogpu.CmdSetScanout:            (*Device).setScanout,
		virtiogpu.CmdResourceFlush:         (*Device).resourceFlush,
		virtiogpu.CmdTransferToHost2D:      (*Device).transferToHost2D,
		virtiogpu.CmdResourceAttachBacking: (*Device).resourceAttachBacking,
		virtiogpu.CmdResourceDetachBacking: (*Device).resourceDetachBacking,
		virtiogpu.CmdGetCapsetInfo:         (*Device).getCapsetInfo,
		virtiogpu.CmdGetCapset:             (*Device).getCapset,
		virtiogpu.CmdGetEDID:               (*Device).getEDID,
		virtiogpu.CmdResourceAssignUUID:    (*Device).resourceAssignUUID,
		virtiogpu.CmdCtxCreate:             (*Device).ctxCreate,
		virtiogpu.CmdCtxDestroy:            (*Device).ctxDestroy,
		virtiogpu.CmdCtxAttachResource:     (*Device).ctxAttachResource,
		virtiogpu.CmdCtxDetachResource:     (*Device).ctxDetachResource,
		virtiogpu.CmdResourceCreate3D:      (*Device).resourceCreate3D,
		virtiogpu.CmdTransferToHost3D:      (*Device).transferToHost3D,
		virtiogpu.CmdTransferFromHost3D:    (*Device).transferFromHost3D,
		virtiogpu.CmdSubmit3D:              (*Device).submit3D,
		virtiogpu.CmdResourceCreateBlob:    (*Device).resourceCreateBlob,
		virtiogpu.CmdSetScanoutBlob:        (*Device).setScanoutBlob,
		virtiogpu.CmdResourceMapBlob:       (*Device).resourceMapBlob,
		virtiogpu.CmdResourceUnmapBlob:     (*Device).resourceUnmapBlob,
		virtiogpu.CmdUpdateCursor:          (*Device).updateCursor,
		virtiogpu.CmdMoveCursor:            (*Device).moveCursor,
	} {
		handlers[t.Index()] = h
	}
}

func (d *Device) dispatch(r *request) error {
	h := handlers[r.hdr.Type.Index()]
	if h == nil {
		return fmt.Errorf("%w: %v needs a feature that the device did not offer", virtiogpu.ErrUnspec, r.hdr.Type)
	}
	return h(d, r)
}

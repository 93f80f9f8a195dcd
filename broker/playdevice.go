package broker

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/record"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// play serves a command that comes from a recording and not from a ring. size is what the
// guest's buffers had. resp is the response's type, 0 if the device answers later; err is
// why it is no good one. skipped says that the command can have no effect here.
func (d *Device) play(kind virtiogpu.QueueKind, cmd []byte, size uint64) (hdr virtiogpu.CtrlHdr, resp virtiogpu.Type, skipped bool, err error) {
	r := &d.req
	*r = request{}
	d.out = d.out[:0]
	d.growCmd(len(cmd))
	copy(d.cmd, cmd)
	switch {
	case size > virtiogpu.MaxCommandSize:
		err = r.tooLarge(d.cmd, size)
	case uint64(len(cmd)) < size:
		err = fmt.Errorf("%w: %d of %d bytes could be read", virtiogpu.ErrUnspec, len(cmd), size)
	default:
		err = r.decode(d.cmd, kind)
	}
	if err == nil {
		if d.withoutCompositor(r) {
			return r.hdr, 0, true, nil
		}
		err = d.dispatch(r)
	}
	d.stats.countCommand(r.hdr.Type)
	if errors.Is(err, errSuspended) {
		return r.hdr, 0, false, nil
	}
	d.answer(r, err)
	return r.hdr, virtiogpu.Type(binary.LittleEndian.Uint32(d.out)), false, err
}

// withoutCompositor reports whether a command is for the compositor behind a cross-domain
// context. Blobs that the context was to make become plain memory.
func (d *Device) withoutCompositor(r *request) bool {
	c := d.contexts[r.hdr.CtxID]
	if c == nil || c.cross == nil {
		return false
	}
	const blobID, end = virtiogpu.SizeCtrlHdr + 16, virtiogpu.SizeCtrlHdr + 24
	if r.hdr.Type == virtiogpu.CmdResourceCreateBlob && len(r.body) >= end {
		clear(r.body[blobID:end])
	}
	return r.hdr.Type == virtiogpu.CmdSubmit3D
}

// playBlob writes what a guest had written into a blob's host memory.
func (d *Device) playBlob(id uint32, off uint64, data []byte) error {
	res := d.resources[id]
	if res == nil || res.blob == nil || !res.blob.memfd {
		return nil // what made it was answered in another way here
	}
	if size := uint64(dmabuf.PageAlign(int64(res.blob.size))); off > size || uint64(len(data)) > size-off {
		return fmt.Errorf("%w: %d bytes at %d of blob %d, which has %d", record.ErrFormat, len(data), off, id, size)
	}
	if _, err := unix.Pwrite(res.blob.host.Int(), data, int64(off)); err != nil {
		return fmt.Errorf("write to blob %d: %w", id, err)
	}
	return nil
}

// playedMemory is the memory of a guest that is not there: sparse files, of which pages
// exist once something is written to them, or read. Render thread only.
type playedMemory struct {
	m     *guestmem.Map
	files map[record.Region]*dmabuf.FD
	limit uint64 // bytes that the files may take
	since uint64 // bytes written, and commands run, since they were looked at
}

func (p *playedMemory) guest() *guestmem.Map { return p.m }

// set makes the regions. What one held stays if it is the same in the old table.
func (p *playedMemory) set(regions []record.Region) (err error) {
	if p.m == nil {
		p.m = guestmem.New()
	}
	total := uint64(0)
	for _, r := range regions {
		if r.Size == 0 || r.Size > maxPlayMemory || total+r.Size > maxPlayMemory {
			return fmt.Errorf("%w: a region of %d bytes at %#x, all of them may have %d", record.ErrFormat, r.Size, r.GPA, uint64(maxPlayMemory))
		}
		total += r.Size
	}
	files := map[record.Region]*dmabuf.FD{}
	specs := make([]guestmem.RegionSpec, 0, len(regions))
	for _, r := range regions {
		fd := p.files[r]
		if fd == nil {
			fd = files[r]
		}
		if fd == nil {
			if fd, err = dmabuf.NewMemfd("guest memory", int64(r.Size)); err != nil {
				break
			}
		}
		files[r] = fd
		var dup *dmabuf.FD
		if dup, err = fd.Dup(); err != nil {
			break
		}
		specs = append(specs, guestmem.RegionSpec{GPA: r.GPA, Size: r.Size, FD: dup})
	}
	if err == nil {
		err = p.m.Set(specs) // takes the descriptors
	} else {
		for i := range specs {
			_ = specs[i].FD.Close()
		}
	}
	for r, fd := range p.files {
		if files[r] == nil {
			_ = fd.Close()
		}
	}
	p.files = files
	return err
}

// write writes what the guest had there.
func (p *playedMemory) write(gpa uint64, data []byte) error {
	if p.m == nil {
		return fmt.Errorf("%w: memory before any region", record.ErrFormat)
	}
	segs, err := p.m.Segments(nil, gpa, uint64(len(data)))
	if err != nil {
		return fmt.Errorf("%w: %w", record.ErrFormat, err)
	}
	if _, err := guestmem.WriteAt(segs, 0, data); err != nil {
		return err
	}
	p.since += uint64(len(data))
	return p.check()
}

// lookAfter is how many bytes may be written, or twice as many commands as pages are in
// it, before the files are looked at.
const lookAfter = 16 << 20

// check says when the files take too much.
func (p *playedMemory) check() error {
	if p.since += pageSize / 2; p.since < lookAfter {
		return nil
	}
	p.since = 0
	used := uint64(0)
	for _, fd := range p.files {
		var st unix.Stat_t
		if err := unix.Fstat(fd.Int(), &st); err != nil {
			return err
		}
		used += uint64(st.Blocks) * 512
	}
	if used > p.limit {
		return fmt.Errorf("the guest's memory takes %d bytes here, limit %d", used, p.limit)
	}
	return nil
}

func (p *playedMemory) close() {
	if p.m != nil {
		p.m.Close()
	}
	for _, fd := range p.files {
		_ = fd.Close()
	}
	p.files = nil
}

package broker

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// maxPlacements limits the mappings that exist at a time. QEMU 11.1 makes a vhost
// memory region of each and aborts at 512; guest memory and other devices need
// some too.
const maxPlacements = 400

// placement is a blob in the host-visible window: a part of a shared memory
// region of the guest (virtio spec 5.7.7.1). The guest chooses the offset.
type placement struct {
	offset, size uint64 // bytes, whole pages
	readOnly     bool
	// lost says that the front-end has it mapped although the guest was told
	// otherwise (the device stopped in between): it goes at the next start.
	lost bool
	// refused says that the front-end did not map it.
	refused bool
}

// window is the host-visible window. Render thread only.
type window struct {
	size   uint64       // bytes, 0: there is none
	placed []*placement // by offset
	// leaving are those that the front-end was asked to unmap. Their space is free
	// at once, because requests are carried out in order: guests use it again as
	// soon as RESOURCE_UNREF is answered (Linux), which may be before the unmapping.
	leaving []*placement
}

const pageMask = 4095

// place takes a part of the window.
func (w *window) place(offset, size uint64) (*placement, error) {
	if size = (size + pageMask) &^ pageMask; offset&pageMask != 0 || size == 0 {
		return nil, fmt.Errorf("%w: offset %#x, must be a multiple of 4096", virtiogpu.ErrInvalidParameter, offset)
	}
	if offset > w.size || size > w.size-offset {
		return nil, fmt.Errorf("%w: %d bytes at offset %#x, the window has %d", virtiogpu.ErrInvalidParameter, size, offset, w.size)
	}
	if w.count() >= maxPlacements {
		return nil, fmt.Errorf("%w: %d blobs are mapped, which is the limit", virtiogpu.ErrOutOfMemory, maxPlacements)
	}
	i, _ := slices.BinarySearchFunc(w.placed, offset, func(p *placement, off uint64) int {
		switch {
		case p.offset < off:
			return -1
		case p.offset > off:
			return 1
		}
		return 0
	})
	if i > 0 && w.placed[i-1].offset+w.placed[i-1].size > offset || i < len(w.placed) && w.placed[i].offset < offset+size {
		return nil, fmt.Errorf("%w: %d bytes at offset %#x overlap a mapped blob", virtiogpu.ErrInvalidParameter, size, offset)
	}
	p := &placement{offset: offset, size: size}
	w.placed = slices.Insert(w.placed, i, p)
	return p, nil
}

// count returns the mappings that the front-end may have.
func (w *window) count() int { return len(w.placed) + len(w.leaving) }

// leave moves a placement from placed to leaving.
func (w *window) leave(p *placement) {
	w.free(p)
	w.leaving = append(w.leaving, p)
}

// left hears that the front-end was done with a placement's unmapping; an error is
// that it still has it.
func (w *window) left(p *placement, err error) {
	i := slices.Index(w.leaving, p)
	if i < 0 {
		return // the device was reset meanwhile
	}
	w.leaving = slices.Delete(w.leaving, i, i+1)
	if err != nil && !p.refused {
		p.lost = true // try again when the device starts
		w.placed = append(w.placed, p)
		slices.SortFunc(w.placed, func(a, b *placement) int { return cmp.Compare(a.offset, b.offset) })
	}
}

func (w *window) free(p *placement) {
	if i := slices.Index(w.placed, p); i >= 0 {
		w.placed = slices.Delete(w.placed, i, i+1)
	}
}

// used returns the bytes that are placed.
func (w *window) used() (bytes uint64) {
	for _, p := range w.placed {
		bytes += p.size
	}
	return bytes
}

// clear forgets everything: the front-end dropped it at a device reset.
func (w *window) clear() { w.placed, w.leaving = nil, nil }

func (d *Device) resourceMapBlob(r *request) error {
	if err := d.needBlobs(); err != nil {
		return err
	}
	var c virtiogpu.ResourceMapBlob
	if err := c.Decode(r.body); err != nil {
		return err
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	switch b := res.blob; {
	case b == nil || b.mem == virtiogpu.BlobMemGuest:
		return fmt.Errorf("%w: resource %d has no host memory to map", virtiogpu.ErrInvalidResource, res.id)
	case b.flags&virtiogpu.BlobFlagMappable == 0:
		return fmt.Errorf("%w: blob %d was not created mappable", virtiogpu.ErrInvalidParameter, res.id)
	case b.place != nil:
		return fmt.Errorf("%w: blob %d is mapped already, at offset %#x", virtiogpu.ErrInvalidParameter, res.id, b.place.offset)
	case !d.canMap():
		return fmt.Errorf("%w: this front-end cannot map blobs (needs QEMU 11.1 with vhost-user-test-device-pci, and --hostmem)", virtiogpu.ErrUnspec)
	}
	fd, err := d.hostMemory(res)
	if err != nil {
		return fmt.Errorf("%w: blob %d cannot be mapped: %w", virtiogpu.ErrOutOfMemory, res.id, err)
	}
	p, err := d.window.place(c.Offset, res.blob.size)
	if err != nil {
		return err
	}
	p.readOnly = res.blob.readOnly
	res.blob.place = p
	info := res.blob.mapInfo
	if d.plays.maps { // nobody is there to map it, and nobody to look
		resp := virtiogpu.MapInfo{CtrlHdr: r.hdr.Reply(virtiogpu.RespOKMapInfo), MapInfo: info & virtiogpu.MapCacheMask}
		d.out = resp.Append(d.out)
		return nil
	}
	cmd := d.suspend(r)
	d.channel.Map(p.mmap(), fd, func(err error) {
		d.cfg.Loop.Post(func() { d.mapped(cmd, res, p, info, err) })
	})
	return errSuspended
}

// canMap reports whether the front-end can map blobs.
func (d *Device) canMap() bool {
	return d.window.size != 0 && (d.plays.maps || d.channel != nil && d.channel.CanMap())
}

// mmap is the message that maps or unmaps the placement.
func (p *placement) mmap() vhostuser.MMap {
	return vhostuser.MMap{ID: virtiogpu.ShmIDHostVisible, Offset: p.offset, Len: p.size, Write: !p.readOnly}
}

// mapped hears what became of a SHMEM_MAP.
func (d *Device) mapped(cmd *suspended, res *resource, p *placement, info uint32, err error) {
	p.refused = err != nil
	current := slices.Contains(d.window.placed, p)
	if err != nil && current {
		d.window.free(p)
		if res.blob.place == p {
			res.blob.place = nil
		}
	}
	if cmd.done && err == nil && current && res.blob.place != p {
		p.lost = true // the command was answered with an error when the queue stopped
	}
	if err != nil {
		d.resume(cmd, fmt.Errorf("%w: %w", virtiogpu.ErrOutOfMemory, err), nil)
		return
	}
	if current && res.blob.place == p {
		d.keepResource(res)
	}
	resp := virtiogpu.MapInfo{CtrlHdr: cmd.hdr.Reply(virtiogpu.RespOKMapInfo), MapInfo: info & virtiogpu.MapCacheMask}
	d.resume(cmd, nil, resp.Append(nil))
}

func (d *Device) resourceUnmapBlob(r *request) error {
	if err := d.needBlobs(); err != nil {
		return err
	}
	var c virtiogpu.ResourceUnmapBlob
	if err := c.Decode(r.body); err != nil {
		return err
	}
	res, err := d.lookup(c.ResourceID)
	if err != nil {
		return err
	}
	if res.blob == nil || res.blob.place == nil {
		return fmt.Errorf("%w: resource %d is not mapped", virtiogpu.ErrInvalidParameter, res.id)
	}
	p := res.blob.place
	res.blob.place = nil
	if d.plays.maps {
		d.window.free(p)
		return nil
	}
	cmd := d.suspend(r)
	cmd.again = r.again
	d.unmapPlace(p, cmd)
	d.keepResource(res)
	return errSuspended
}

// unmapPlace takes a placement out of the guest; cmd, if not nil, is answered
// when that is done.
func (d *Device) unmapPlace(p *placement, cmd *suspended) {
	if d.channel == nil {
		d.window.free(p)
		if cmd != nil {
			d.resume(cmd, nil, nil)
		}
		return
	}
	d.window.leave(p)
	d.channel.Unmap(p.mmap(), func(err error) {
		d.cfg.Loop.Post(func() {
			if cmd != nil && cmd.again {
				err = nil // it may have been unmapped the first time
			}
			d.window.left(p, err)
			if cmd != nil {
				d.resume(cmd, err, nil)
			}
		})
	})
}

// forgetPlacements drops every mapping without a word: at a device reset the
// front-end has dropped them already, and an UNMAP would be an error.
func (d *Device) forgetPlacements() {
	for _, r := range d.resources {
		if r.blob != nil {
			r.blob.place = nil
		}
	}
	d.window.clear()
}

// reclaim takes away what the guest does not know to be mapped.
func (d *Device) reclaim() {
	for _, p := range slices.Clone(d.window.placed) {
		if p.lost {
			p.lost = false
			d.unmapPlace(p, nil)
		}
	}
}

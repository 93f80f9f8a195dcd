package broker

import (
	"encoding/binary"
	"hash/maphash"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/record"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/virtq"
)

// recorder writes what the guest does into a recording. Each command is there before it
// is run, with the guest memory that it reads: pages as they were last written down are
// not written again. Render thread only.
type recorder struct {
	w   *record.Writer
	log *zap.Logger

	// What the last KindMachine said.
	mem      *guestmem.Map
	changes  uint64
	features uint64
	maps     bool

	seed    maphash.Seed
	seen    map[uint64]uint64 // hashes of guest memory in the recording, by page
	scratch []byte
	used    bool // there were commands since the last reset
}

func newRecorder(w *record.Writer, log *zap.Logger) *recorder {
	return &recorder{w: w, log: log, seed: maphash.MakeSeed(), seen: map[uint64]uint64{}, scratch: make([]byte, record.MaxMemory)}
}

// recordTaken writes a command, as it was taken out of the chain.
func (d *Device) recordTaken(r *request, c *virtq.Chain, kind virtiogpu.QueueKind) {
	rec := d.rec
	maps := d.channel != nil && d.channel.CanMap()
	if d.mem != rec.mem || d.mem.Changes() != rec.changes || d.features != rec.features || maps != rec.maps {
		rec.machine(d.mem, d.features, maps)
	}
	if r.body != nil {
		d.recordReads(r)
	}
	r.number = rec.w.Command(uint32(kind), c.ReadLen(), d.cmd) + 1
	rec.used = true
	d.recordCheck()
}

// recordAnswer writes the response that is in d.out.
func (d *Device) recordAnswer(r *request) {
	if r.number != 0 {
		d.rec.w.Answer(r.number-1, binary.LittleEndian.Uint32(d.out))
	}
}

// recordIdle hears that the queue is empty.
func (d *Device) recordIdle() {
	d.rec.w.Flush()
	d.recordCheck()
}

// recordReset hears that nothing is left.
func (d *Device) recordReset() {
	if d.rec.used {
		d.rec.used = false
		d.rec.w.Reset()
	}
}

// recordCheck ends the recording when nothing more is written; the guest does not notice.
func (d *Device) recordCheck() {
	if why := d.rec.w.Stopped(); why != nil {
		d.log.Warn("the recording ends here; the guest runs on", zap.String("file", d.rec.w.Path()), zap.Uint64("bytes", d.rec.w.Size()), zap.Error(why))
		d.rec = nil
	}
}

func (rec *recorder) machine(mem *guestmem.Map, features uint64, maps bool) {
	rec.mem, rec.changes, rec.features, rec.maps = mem, mem.Changes(), features, maps
	m := record.Machine{Features: features, Maps: maps}
	for _, s := range mem.Spans() {
		m.Regions = append(m.Regions, record.Region(s))
	}
	rec.w.Machine(&m)
	clear(rec.seen) // nothing is known of what a replay has there
}

// lent writes n bytes of a backing, off bytes from its start, or as many as there are.
func (rec *recorder) lent(b *guestmem.Backing, off, n uint64) {
	rec.eachPiece(b, off, n, func(gpa uint64, mem []byte) { rec.pages(rec.seen, gpa, mem, rec.w.Memory) })
}

// forget notes that the renderer writes to that part of a backing: a replay's may write
// something else.
func (rec *recorder) forget(b *guestmem.Backing, off, n uint64) {
	rec.eachPiece(b, off, n, func(gpa uint64, mem []byte) {
		for page := gpa / pageSize; page <= (gpa+uint64(len(mem))-1)/pageSize; page++ {
			delete(rec.seen, page)
		}
	})
}

// eachPiece finds where a part of a backing lies in guest memory. What lies in a region
// that is gone has no address any more and is left out.
func (rec *recorder) eachPiece(b *guestmem.Backing, off, n uint64, f func(gpa uint64, mem []byte)) {
	if b == nil || off >= b.Size {
		return
	}
	end := off + min(n, b.Size-off)
	at := uint64(0)
	for i, seg := range b.Segs {
		size := uint64(len(seg))
		if lo, hi := max(off, at), min(end, at+size); lo < hi {
			if gpa, ok := rec.mem.GuestAddr(b.Files()[i]); ok {
				// Whole pages, as far as they are lent: of parts it is not known later what they held.
				lo -= min(lo-at, (gpa+lo-at)%pageSize)
				hi += min(at+size-hi, -(gpa+hi-at)%pageSize)
				f(gpa+lo-at, seg[lo-at:hi-at])
			}
		}
		if at += size; at >= end {
			return
		}
	}
}

const pageSize = pageMask + 1

// pages writes the pages of mem, which lies at addr, that are not as they were written
// last. The guest may change them meanwhile: what is compared is what is written.
func (rec *recorder) pages(seen map[uint64]uint64, addr uint64, mem []byte, write func(addr uint64, data []byte)) {
	for len(mem) > 0 {
		chunk := rec.scratch[:min(len(mem), len(rec.scratch)-int(addr%pageSize))]
		if _, err := guestmem.Copy(chunk, mem); err != nil {
			return // the pages are gone: whoever reads them next says so
		}
		from := -1 // where bytes that have to be written begin
		for at := 0; at < len(chunk); {
			n := min(len(chunk)-at, int(pageSize-(addr+uint64(at))%pageSize))
			if rec.changed(seen, addr+uint64(at), chunk[at:at+n]) {
				if from < 0 {
					from = at
				}
			} else if from >= 0 {
				write(addr+uint64(from), chunk[from:at])
				from = -1
			}
			at += n
		}
		if from >= 0 {
			write(addr+uint64(from), chunk[from:])
		}
		addr += uint64(len(chunk))
		mem = mem[len(chunk):]
	}
}

// changed reports whether a page, or a part of one, has to be written, and takes it for
// written.
func (rec *recorder) changed(seen map[uint64]uint64, addr uint64, data []byte) bool {
	page := addr / pageSize
	if len(data) < pageSize {
		delete(seen, page) // of which other parts may be known
		return true
	}
	h := maphash.Bytes(rec.seed, data)
	if old, ok := seen[page]; ok && old == h {
		return false
	}
	seen[page] = h
	return true
}

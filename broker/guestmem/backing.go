package guestmem

import (
	"fmt"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Entry is a run of guest-physical memory, as in struct virtio_gpu_mem_entry.
type Entry struct {
	Addr uint64 // guest-physical address
	Len  uint32 // bytes
}

// FileRange says where in a file a part of a backing lies.
type FileRange struct {
	FD     *dmabuf.FD // borrowed from the backing
	Offset uint64     // bytes from the start of the file
	Len    uint64     // bytes
}

// Backing is a list of pieces of guest memory that a guest lent to a resource.
// Its memory stays mapped, at the same addresses, until Close, also when the
// front-end replaces the memory table in the meantime.
//
// It may be read from any goroutine; Close is for the render thread.
type Backing struct {
	Segs [][]byte // the pieces in order; neighbours in one file are one piece
	Size uint64   // bytes, the sum of Segs

	files []FileRange // one per segment
	held  []*mapping  // one reference each
	seal  bool
}

// NewBacking translates entries and holds on to their memory. Entries of length
// 0 count for nothing. The caller must limit the number of entries. Called on
// the render thread.
func (m *Map) NewBacking(entries []Entry) (*Backing, error) {
	b := &Backing{seal: true}
	for i, e := range entries {
		if err := b.add(m, e); err != nil {
			b.Close()
			return nil, &OpError{Op: fmt.Sprintf("back with entry %d of %d:", i, len(entries)), Addr: e.Addr, Len: uint64(e.Len), Err: err}
		}
	}
	return b, nil
}

func (b *Backing) add(m *Map, e Entry) error {
	at, left := e.Addr, uint64(e.Len)
	for left > 0 {
		mem, err := m.span(at, left)
		if err != nil {
			return err
		}
		r := m.find(at) // span found it
		b.append(r.mp, r.mp.offset+(at-r.gpa), mem)
		n := uint64(len(mem))
		at += n // cannot overflow: a region ends below 2^64
		left -= n
	}
	return nil
}

func (b *Backing) append(mp *mapping, fileOff uint64, mem []byte) {
	n := uint64(len(mem))
	b.Size += n
	b.hold(mp)
	if last := len(b.files) - 1; last >= 0 {
		f := &b.files[last]
		if f.FD == mp.fd && f.Offset+f.Len == fileOff {
			start := f.Offset - mp.offset
			f.Len += n
			b.Segs[last] = mp.mem[start : start+f.Len : start+f.Len]
			return
		}
	}
	b.Segs = append(b.Segs, mem)
	b.files = append(b.files, FileRange{FD: mp.fd, Offset: fileOff, Len: n})
}

func (b *Backing) hold(mp *mapping) {
	for _, h := range b.held {
		if h == mp {
			return
		}
	}
	mp.retain()
	b.held = append(b.held, mp)
	b.seal = b.seal && mp.sealed
}

// Files returns, for each element of Segs, where it lies in which file: what a
// udmabuf is made of. The fds stay the backing's; the slice must not be changed.
func (b *Backing) Files() []FileRange { return b.files }

// Sealed reports whether none of the files can be made shorter, so that C code
// may use the memory.
func (b *Backing) Sealed() bool { return b.seal }

// Close lets the memory go; Segs and Files must not be used afterwards. A second
// Close does nothing.
func (b *Backing) Close() {
	for _, mp := range b.held {
		mp.release()
	}
	b.held, b.Segs, b.files, b.Size = nil, nil, nil, 0
}

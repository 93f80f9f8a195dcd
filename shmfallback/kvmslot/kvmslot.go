package kvmslot

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/gpubroker/gpubroker/dmabuf"
)

var (
	// ErrInvalid says that an argument breaks a limit; the text names it.
	ErrInvalid = errors.New("invalid argument")
	// ErrNoSlot says that every slot in the budget is in use.
	ErrNoSlot = errors.New("no memory slot is free")
	// ErrClosed says that the Slots were closed.
	ErrClosed = errors.New("closed")
)

// OpError is the error type of this package.
type OpError struct {
	Op  string // "map", "unmap"
	GPA uint64 // guest-physical address; 0 if it is not about one
	Err error
}

func (e *OpError) Error() string { return fmt.Sprintf("kvmslot: %s at %#x: %v", e.Op, e.GPA, e.Err) }

func (e *OpError) Unwrap() error { return e.Err }

// Config says which memory slots of the VM may be used.
type Config struct {
	First uint32 // the VMM's own slots are below
	Max   int    // most slots at a time; 0: as many as KVM has beyond First
}

// Slots hands out memory slots of one VM. Its methods may be called from any
// goroutine.
type Slots struct {
	vm    *dmabuf.FD // borrowed
	first uint32

	mu     sync.Mutex
	maps   []*Mapping // by slot, nil where free; guarded by mu
	closed bool       // guarded by mu
}

// Mapping is a buffer in the guest's memory.
type Mapping struct {
	GPA  uint64 // guest-physical address
	Size uint64 // bytes, whole pages

	s    *Slots
	slot uint32
	buf  *dmabuf.Buffer // one reference; nil once unmapped, guarded by s.mu
}

// New makes Slots for the VM of a KVM_CREATE_VM descriptor, which is borrowed until
// Close. The error is the system's if KVM does not say how many slots it has.
func New(vm *dmabuf.FD, cfg Config) (*Slots, error) {
	have, err := checkExtension(vm, capNrMemslots)
	if err != nil {
		return nil, &OpError{Op: "ask for KVM_CAP_NR_MEMSLOTS", Err: err}
	}
	budget := have - int(cfg.First)
	if budget <= 0 {
		return nil, &OpError{Op: "start", Err: fmt.Errorf("%w: first slot %d, KVM has %d", ErrInvalid, cfg.First, have)}
	}
	if cfg.Max > 0 {
		budget = min(budget, cfg.Max)
	}
	return &Slots{vm: vm, first: cfg.First, maps: make([]*Mapping, budget)}, nil
}

// Budget returns how many mappings can exist at a time.
func (s *Slots) Budget() int { return len(s.maps) }

// Used returns how many exist.
func (s *Slots) Used() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.maps) - s.freeLocked()
}

func (s *Slots) freeLocked() (n int) {
	for _, m := range s.maps {
		if m == nil {
			n++
		}
	}
	return n
}

// Map puts the pages of a shared-memory buffer (shmfallback.Alloc) into the guest
// at gpa, readable and writable, or read-only if writable is false and KVM can.
// The mapping holds a reference of the buffer until Unmap, so that the pages
// outlive every access of the guest.
//
// Errors: [ErrInvalid] for a buffer without memory or an address that is not
// that of a page, [ErrNoSlot] beyond the budget, EEXIST where the guest has memory
// there already.
func (s *Slots) Map(buf *dmabuf.Buffer, gpa uint64, writable bool) (*Mapping, error) {
	fail := func(err error) (*Mapping, error) { return nil, &OpError{Op: "map", GPA: gpa, Err: err} }
	page := uint64(os.Getpagesize())
	size := uint64(len(buf.Mem))
	if size == 0 || size%page != 0 {
		return fail(fmt.Errorf("%w: %v has %d bytes mapped, want whole pages of %d", ErrInvalid, buf, size, page))
	}
	if gpa%page != 0 || gpa+size < gpa {
		return fail(fmt.Errorf("%w: %d bytes at that address, want a multiple of %d", ErrInvalid, size, page))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fail(ErrClosed)
	}
	i := slices.Index(s.maps, nil)
	if i < 0 {
		return fail(fmt.Errorf("%w: %d in use, which is the limit", ErrNoSlot, len(s.maps)))
	}
	m := &Mapping{GPA: gpa, Size: size, s: s, slot: s.first + uint32(i)}
	r := region{slot: m.slot, guestPhysAddr: gpa, memorySize: size}
	if !writable {
		r.flags = memReadonly
	}
	if err := setRegion(s.vm, r, buf.Mem); err != nil {
		return fail(err)
	}
	m.buf = buf.Retain()
	s.maps[i] = m
	return m, nil
}

// Slot returns the number of the KVM memory slot.
func (m *Mapping) Slot() uint32 { return m.slot }

// Unmap takes the pages away from the guest, whose next access there is MMIO for
// the VMM, frees the slot and lets go of the buffer. A second call does nothing.
func (m *Mapping) Unmap() error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	return m.unmapLocked()
}

func (m *Mapping) unmapLocked() error {
	if m.buf == nil {
		return nil
	}
	if err := setRegion(m.s.vm, region{slot: m.slot}, nil); err != nil {
		return &OpError{Op: "unmap", GPA: m.GPA, Err: err} // the guest has it still, so the buffer stays
	}
	m.buf.Release()
	m.buf = nil
	m.s.maps[m.slot-m.s.first] = nil
	return nil
}

// Close unmaps what is mapped. The VM's descriptor must still be open.
func (s *Slots) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, m := range s.maps {
		if m != nil {
			errs = append(errs, m.unmapLocked())
		}
	}
	return errors.Join(errs...)
}

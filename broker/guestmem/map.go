package guestmem

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// MaxRegions is the most regions a map takes. QEMU uses no more memory slots
// than this (VHOST_USER_MAX_RAM_SLOTS on x86).
const MaxRegions = 512

// maxRegionSize keeps sizes and file offsets inside an int64 (x86 has 52
// physical address bits).
const maxRegionSize = 1 << 52

// RegionSpec is one region of guest memory, as vhost-user describes it
// (VhostUserMemoryRegion).
type RegionSpec struct {
	GPA        uint64     // guest-physical address, bytes
	Size       uint64     // bytes
	UserAddr   uint64     // the same memory in the front-end's address space; ring addresses use it
	MmapOffset uint64     // bytes from the start of the file
	FD         *dmabuf.FD // ownership passes to the map
}

func (s *RegionSpec) check() error {
	switch {
	case s.Size == 0:
		return fmt.Errorf("%w: size 0", ErrRegion)
	case s.Size > maxRegionSize:
		return fmt.Errorf("%w: size %#x, limit %#x", ErrRegion, s.Size, uint64(maxRegionSize))
	case s.GPA > math.MaxUint64-s.Size:
		return fmt.Errorf("%w: guest address %#x+%#x overflows", ErrRegion, s.GPA, s.Size)
	case s.UserAddr > math.MaxUint64-s.Size:
		return fmt.Errorf("%w: user address %#x+%#x overflows", ErrRegion, s.UserAddr, s.Size)
	case s.MmapOffset > maxRegionSize:
		return fmt.Errorf("%w: mmap offset %#x, limit %#x", ErrRegion, s.MmapOffset, uint64(maxRegionSize))
	}
	return nil
}

type region struct {
	gpa, size, user uint64
	mp              *mapping // one reference
}

// Map is a guest's memory table. Only the render thread may use it.
type Map struct {
	regions []region // sorted by gpa, without overlaps
	last    int      // index of the region found last
	epoch   uint64
	changes uint64
}

// New makes an empty map.
func New() *Map { return &Map{} }

// Epoch is a number that changes whenever memory that was translated before may
// have been unmapped. Slices from [Map.Segments] and [Map.FromUser] are valid
// only while it stays the same.
func (m *Map) Epoch() uint64 { return m.epoch }

// Regions returns the number of regions.
func (m *Map) Regions() int { return len(m.regions) }

// Sealed reports whether no region's file can be made shorter. If it is false,
// an access may raise SIGBUS: Go code survives that with [Recover], C code kills
// the process. It is true for an empty map.
func (m *Map) Sealed() bool {
	for i := range m.regions {
		if !m.regions[i].mp.sealed {
			return false
		}
	}
	return true
}

// Set replaces the whole table (SET_MEM_TABLE). It takes ownership of every fd,
// also on error, and on error leaves the old table in place. Files that the old
// table has too stay mapped where they are.
func (m *Map) Set(specs []RegionSpec) error {
	next := make([]region, 0, len(specs))
	fail := func(s *RegionSpec, rest []RegionSpec, err error) error {
		for i := range rest {
			_ = rest[i].FD.Close()
		}
		for i := range next {
			next[i].mp.release()
		}
		return &OpError{Op: "set memory table: region", Addr: s.GPA, Len: s.Size, Err: err}
	}
	if len(specs) > MaxRegions {
		return fail(&specs[0], specs, fmt.Errorf("%w: %d regions, limit %d", ErrRegion, len(specs), MaxRegions))
	}
	for i := range specs {
		s := &specs[i]
		r, err := m.newRegion(s)
		if err != nil {
			return fail(s, specs[i+1:], err)
		}
		next = append(next, r)
		if o := overlap(next[:i], r); o != nil {
			return fail(s, specs[i+1:], fmt.Errorf("%w: overlaps region %#x+%#x", ErrRegion, o.gpa, o.size))
		}
	}
	slices.SortFunc(next, func(a, b region) int {
		if a.gpa < b.gpa {
			return -1
		}
		return 1
	})
	old := m.regions
	m.regions, m.last = next, 0
	m.changes++
	for i := range old {
		m.drop(old[i])
	}
	return nil
}

// Add adds one region (ADD_MEM_REG). It takes ownership of the fd, also on
// error.
func (m *Map) Add(s RegionSpec) error {
	err := func() error {
		if len(m.regions) >= MaxRegions {
			_ = s.FD.Close()
			return fmt.Errorf("%w: the table has %d regions, limit %d", ErrRegion, len(m.regions), MaxRegions)
		}
		r, err := m.newRegion(&s)
		if err != nil {
			return err
		}
		if o := overlap(m.regions, r); o != nil {
			r.mp.release()
			return fmt.Errorf("%w: overlaps region %#x+%#x", ErrRegion, o.gpa, o.size)
		}
		at := sort.Search(len(m.regions), func(i int) bool { return m.regions[i].gpa > r.gpa })
		m.regions = slices.Insert(m.regions, at, r)
		m.last = at
		m.changes++
		return nil
	}()
	if err != nil {
		return &OpError{Op: "add region", Addr: s.GPA, Len: s.Size, Err: err}
	}
	return nil
}

// Remove takes one region out (REM_MEM_REG). GPA, size and user address must be
// those of a region; an fd in s is closed and not looked at. Backings made from
// the region keep its memory mapped.
func (m *Map) Remove(s RegionSpec) error {
	_ = s.FD.Close()
	for i := range m.regions {
		r := m.regions[i]
		if r.gpa != s.GPA || r.size != s.Size || r.user != s.UserAddr {
			continue
		}
		m.regions = slices.Delete(m.regions, i, i+1)
		m.last = 0
		m.drop(r)
		return nil
	}
	return &OpError{Op: "remove region", Addr: s.GPA, Len: s.Size, Err: fmt.Errorf("%w: there is none at user address %#x", ErrRegion, s.UserAddr)}
}

// Close empties the map. It may be used again afterwards.
func (m *Map) Close() {
	for i := range m.regions {
		m.drop(m.regions[i])
	}
	m.regions, m.last = nil, 0
}

// newRegion consumes s.FD. The reference that the region holds is to an old
// mapping of the same part of the same file if there is one: QEMU sends the
// whole table on each small change, and mapping afresh would fault in every
// page of the guest again.
func (m *Map) newRegion(s *RegionSpec) (region, error) {
	if err := s.check(); err != nil {
		_ = s.FD.Close()
		return region{}, err
	}
	mp, err := newMapping(s.FD, s.MmapOffset, s.Size)
	if err != nil {
		return region{}, err
	}
	for i := range m.regions {
		if old := m.regions[i].mp; old.same(mp) {
			mp.release()
			mp = old
			mp.retain()
			break
		}
	}
	return region{gpa: s.GPA, size: s.Size, user: s.UserAddr, mp: mp}, nil
}

func (m *Map) drop(r region) {
	m.epoch++
	m.changes++
	r.mp.release()
}

func overlap(rs []region, r region) *region {
	for i := range rs {
		if o := &rs[i]; r.gpa < o.gpa+o.size && o.gpa < r.gpa+r.size {
			return o
		}
	}
	return nil
}

// find returns the region that holds gpa, or nil.
func (m *Map) find(gpa uint64) *region {
	if m.last < len(m.regions) {
		if r := &m.regions[m.last]; gpa-r.gpa < r.size { // wraps to a huge number when gpa is below
			return r
		}
	}
	lo, hi := 0, len(m.regions)
	for lo < hi {
		mid := (lo + hi) / 2
		if m.regions[mid].gpa <= gpa {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return nil
	}
	r := &m.regions[lo-1]
	if gpa-r.gpa >= r.size {
		return nil
	}
	m.last = lo - 1
	return r
}

// Segments appends to dst the memory of length bytes at guest-physical address
// gpa: one slice per region touched. On error dst comes back as it was. It does
// not allocate while dst has capacity. The slices alias guest memory, which the
// guest changes at will, and are valid until [Map.Epoch] changes.
func (m *Map) Segments(dst [][]byte, gpa, length uint64) ([][]byte, error) {
	out := dst
	for at, left := gpa, length; left > 0; {
		mem, err := m.span(at, left)
		if err != nil {
			return dst, &OpError{Op: "translate", Addr: gpa, Len: length, Err: err}
		}
		out = append(out, mem)
		n := uint64(len(mem))
		left -= n
		if left > 0 && at > math.MaxUint64-n {
			return dst, &OpError{Op: "translate", Addr: gpa, Len: length, Err: fmt.Errorf("%w: address overflows", ErrUnmapped)}
		}
		at += n
	}
	return out, nil
}

// span returns as much of [gpa, gpa+length) as lies in gpa's region.
func (m *Map) span(gpa, length uint64) ([]byte, error) {
	r := m.find(gpa)
	if r == nil {
		return nil, ErrUnmapped
	}
	mem, err := r.mp.bytes()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnmapped, err)
	}
	off := gpa - r.gpa
	n := min(length, r.size-off)
	return mem[off : off+n : off+n], nil
}

// FromUser returns length bytes at an address of the front-end's own address
// space, as SET_VRING_ADDR gives them. The range must lie in one region. The
// slice is valid until [Map.Epoch] changes.
func (m *Map) FromUser(user, length uint64) ([]byte, error) {
	for i := range m.regions {
		r := &m.regions[i]
		off := user - r.user
		if user < r.user || off >= r.size || length > r.size-off {
			continue
		}
		mem, err := r.mp.bytes()
		if err != nil {
			return nil, &OpError{Op: "translate user address", Addr: user, Len: length, Err: fmt.Errorf("%w: %w", ErrUnmapped, err)}
		}
		return mem[off : off+length : off+length], nil
	}
	return nil, &OpError{Op: "translate user address", Addr: user, Len: length, Err: ErrUnmapped}
}

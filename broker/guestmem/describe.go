package guestmem

// Span is a run of guest-physical addresses.
type Span struct {
	GPA  uint64
	Size uint64 // bytes
}

// Changes is a number that changes with every change of the table. (Epoch does only
// where memory went.)
func (m *Map) Changes() uint64 { return m.changes }

// Spans lists the regions, by address.
func (m *Map) Spans() []Span {
	out := make([]Span, len(m.regions))
	for i := range m.regions {
		out[i] = Span{m.regions[i].gpa, m.regions[i].size}
	}
	return out
}

// GuestAddr finds the guest-physical address of a part of a backing (Backing.Files). It
// has one only while the table has the region that the backing was made from.
func (m *Map) GuestAddr(f FileRange) (gpa uint64, ok bool) {
	for i := range m.regions {
		r := &m.regions[i]
		if at := f.Offset - r.mp.offset; r.mp.fd == f.FD && f.Offset >= r.mp.offset && at < r.size && f.Len <= r.size-at {
			return r.gpa + at, true
		}
	}
	return 0, false
}

package guestmem

import (
	"slices"
	"testing"
)

// TestGuestAddr: a part of a backing has the address that the guest gave, as long as the
// table has its region; and every change of the table shows.
func TestGuestAddr(t *testing.T) {
	m, fd := pcMap(t)
	spans := m.Spans()
	if len(spans) != 2 {
		t.Fatalf("spans %+v", spans)
	}
	last := spans[1]
	want := []Entry{{spans[0].GPA + 3*page, page}, {last.GPA + 5*page, 2 * page}}
	b, err := m.NewBacking(want)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var got []Entry
	for _, f := range b.Files() {
		if gpa, ok := m.GuestAddr(f); ok {
			got = append(got, Entry{gpa, uint32(f.Len)})
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("addresses %+v, want %+v", got, want)
	}
	f := b.Files()[1]
	f.Len = last.Size // from its sixth page on
	if gpa, ok := m.GuestAddr(f); ok {
		t.Errorf("more than the region has is at %#x", gpa)
	}
	before := m.Changes()
	if err := m.Remove(RegionSpec{GPA: last.GPA, Size: last.Size, UserAddr: m.regions[1].user}); err != nil {
		t.Fatal(err)
	}
	if m.Changes() == before {
		t.Error("a region went without a change")
	}
	if gpa, ok := m.GuestAddr(b.Files()[1]); ok {
		t.Errorf("what is in no region is at %#x", gpa)
	}
	before = m.Changes()
	if err := m.Add(RegionSpec{GPA: 1 << 40, Size: page, UserAddr: 1 << 50, FD: dup(t, fd)}); err != nil {
		t.Fatal(err)
	}
	if m.Changes() == before || len(m.Spans()) != 2 {
		t.Error("a region came without a change")
	}
}

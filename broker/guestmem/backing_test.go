package guestmem

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestBacking(t *testing.T) {
	m, _ := pcMap(t)
	b, err := m.NewBacking([]Entry{
		{Addr: 2 * page, Len: page},
		{Addr: 3 * page, Len: page}, // follows: merged
		{Addr: 9 * page, Len: 100},
		{Addr: 9*page + 100, Len: page - 100}, // follows
		{Addr: 1 << 32, Len: 0},               // nothing
		{Addr: 1<<32 + page, Len: page},
		{Addr: 31 * page, Len: page},
	})
	if err != nil {
		t.Fatal(err)
	}
	if b.Size != 5*page || len(b.Segs) != 4 {
		t.Fatalf("size %d, %d segments", b.Size, len(b.Segs))
	}
	wantFile := []uint64{2 * page, 9 * page, 33 * page, 31 * page}
	for i, f := range b.Files() {
		if f.Offset != wantFile[i] || f.Len != uint64(len(b.Segs[i])) {
			t.Errorf("range %d: %#x+%#x, want offset %#x", i, f.Offset, f.Len, wantFile[i])
		}
		at(t, b.Segs[i], int(wantFile[i]))
		var buf [4]byte
		if _, err := unix.Pread(f.FD.Int(), buf[:], int64(f.Offset)); err != nil || !bytes.Equal(buf[:], b.Segs[i][:4]) {
			t.Errorf("range %d: the file holds %x (%v), the segment %x", i, buf, err, b.Segs[i][:4])
		}
	}
	// QEMU takes all memory away: the backing does not notice.
	if err := m.Set(nil); err != nil {
		t.Fatal(err)
	}
	at(t, b.Segs[2], 33*page)
	b.Segs[2][0] = 0xee
	b.Close()
	b.Close()
	if b.Segs != nil || b.Size != 0 {
		t.Error("a closed backing has memory")
	}
}

func TestBackingError(t *testing.T) {
	m, _ := pcMap(t)
	for _, bad := range []Entry{{1 << 31, 4}, {31 * page, 2 * page}, {math.MaxUint64, 2}, {1<<32 + 31*page, math.MaxUint32}} {
		b, err := m.NewBacking([]Entry{{0, page}, bad})
		if !errors.Is(err, ErrUnmapped) || b != nil {
			t.Errorf("%#x: %v", bad, err)
		}
		if err != nil && !strings.Contains(err.Error(), "entry 1 of 2") {
			t.Errorf("the message does not name the entry: %v", err)
		}
	}
}

// TestFault shortens the file under the map, which only a front-end that does not
// seal can do.
func TestFault(t *testing.T) {
	fd := memfd(t, 4*page, unix.F_SEAL_SEAL)
	m := New()
	defer m.Close()
	if err := m.Add(RegionSpec{GPA: 0, Size: 4 * page, FD: dup(t, fd)}); err != nil {
		t.Fatal(err)
	}
	segs, err := m.Segments(nil, 2*page-16, 64)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd.Int(), 2*page); err != nil {
		t.Fatal(err)
	}
	_ = fd.Close()
	buf := make([]byte, 64)
	if _, err := ReadAt(buf, segs, 0); !errors.Is(err, ErrFault) {
		t.Errorf("read of lost pages: %v", err)
	}
	if _, err := WriteAt(segs, 30, buf); !errors.Is(err, ErrFault) {
		t.Errorf("write to lost pages: %v", err)
	}
	if _, err := Copy(buf, segs[0]); !errors.Is(err, ErrFault) {
		t.Errorf("copy of lost pages: %v", err)
	}
	if n, err := ReadAt(buf[:16], segs, 0); n != 16 || err != nil {
		t.Errorf("read of the pages that are left: %d, %v", n, err)
	}
	// A panic that is not a fault must come through.
	defer func() {
		if r := recover(); r != "boom" {
			t.Errorf("recovered %v, want boom", r)
		}
	}()
	func() {
		var err error
		defer Recover(false, &err)
		panic("boom")
	}()
}

func TestCopyHelpers(t *testing.T) {
	segs := [][]byte{[]byte("abc"), {}, []byte("defgh"), []byte("ij")}
	for off := range 12 {
		for n := range 12 {
			buf := make([]byte, n)
			got, err := ReadAt(buf, segs, uint64(off))
			want := "abcdefghij"[min(off, 10):min(off+n, 10)]
			if err != nil || string(buf[:got]) != want {
				t.Fatalf("read %d at %d: %q, %v; want %q", n, off, buf[:got], err, want)
			}
			to := [][]byte{make([]byte, 3), nil, make([]byte, 5), make([]byte, 2)}
			got, err = WriteAt(to, uint64(off), []byte("0123456789AB")[:n])
			all := slices.Concat(to...)
			if err != nil || got != len(want) || !bytes.Equal(all[min(off, 10):min(off, 10)+got], []byte("0123456789AB")[:got]) {
				t.Fatalf("write %d at %d: %d bytes, %v, %q", n, off, got, err, all)
			}
		}
	}
}

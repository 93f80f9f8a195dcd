package guestmem

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/gpubroker/gpubroker/dmabuf"
)

const page = 4096

// memfd makes a file whose 32-bit words count up, so that each place in it can be
// told from every other.
func memfd(t testing.TB, size, seals int) *dmabuf.FD {
	t.Helper()
	raw, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	fd := dmabuf.NewFD(raw, "test memfd")
	var b bytes.Buffer
	for i := range size / 4 {
		b.Write([]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)})
	}
	if _, err := unix.Pwrite(raw, b.Bytes(), 0); err != nil {
		t.Fatal(err)
	}
	if seals != 0 {
		if _, err := unix.FcntlInt(uintptr(raw), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

const qemuSeals = unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL

func dup(t testing.TB, fd *dmabuf.FD) *dmabuf.FD {
	t.Helper()
	d, err := fd.Dup()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pcMap is guest memory as QEMU lays it out: one file, a hole below 4 GiB.
func pcMap(t testing.TB) (*Map, *dmabuf.FD) {
	t.Helper()
	fd := memfd(t, 64*page, qemuSeals)
	m := New()
	err := m.Set([]RegionSpec{
		{GPA: 1 << 32, Size: 32 * page, UserAddr: 0x7000_0000 + 32*page, MmapOffset: 32 * page, FD: dup(t, fd)},
		{GPA: 0, Size: 32 * page, UserAddr: 0x7000_0000, FD: dup(t, fd)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(); _ = fd.Close() })
	return m, fd
}

func at(t testing.TB, b []byte, off int) {
	t.Helper()
	i := off / 4
	if want := []byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}; !bytes.Equal(b[:4], want) {
		t.Fatalf("memory holds %x, want %x (file offset %#x)", b[:4], want, off)
	}
}

func TestSegments(t *testing.T) {
	m, _ := pcMap(t)
	segs, err := m.Segments(nil, 8, 3*page)
	if err != nil || len(segs) != 1 || len(segs[0]) != 3*page {
		t.Fatalf("%d segments, %v", len(segs), err)
	}
	at(t, segs[0], 8)
	segs, err = m.Segments(segs[:0], 1<<32+page, page)
	if err != nil {
		t.Fatal(err)
	}
	at(t, segs[0], 33*page)

	bad := []struct {
		name   string
		gpa, n uint64
	}{
		{"below the hole", 32*page - 8, 16},
		{"in the hole", 1 << 31, 4},
		{"above", 1<<32 + 32*page, 1},
		{"runs out", 1<<32 + 31*page, 2 * page},
		{"overflow", math.MaxUint64 - 3, 8},
		{"huge", 0, math.MaxUint64},
	}
	for _, tt := range bad {
		got, err := m.Segments(segs[:0], tt.gpa, tt.n)
		var op *OpError
		if !errors.Is(err, ErrUnmapped) || !errors.As(err, &op) || op.Addr != tt.gpa || len(got) != 0 {
			t.Errorf("%s: %d segments, %v", tt.name, len(got), err)
		}
	}
	if segs, err := m.Segments(nil, 1<<40, 0); err != nil || len(segs) != 0 {
		t.Errorf("length 0: %v, %v", segs, err)
	}
}

// TestSplit crosses from one region to the next: one range, two slices.
func TestSplit(t *testing.T) {
	fd := memfd(t, 4*page, qemuSeals)
	defer fd.Close()
	m := New()
	defer m.Close()
	for i, off := range []uint64{3, 1, 0} { // not in the file's order
		if err := m.Add(RegionSpec{GPA: uint64(0x10000 + i*page), Size: page, UserAddr: uint64(0x900000 + i*page), MmapOffset: off * page, FD: dup(t, fd)}); err != nil {
			t.Fatal(err)
		}
	}
	segs, err := m.Segments(nil, 0x10000+100, 2*page)
	if err != nil || len(segs) != 3 {
		t.Fatalf("%d segments, %v", len(segs), err)
	}
	at(t, segs[0], 3*page+100)
	at(t, segs[1], page)
	at(t, segs[2], 0)
	if len(segs[0]) != page-100 || len(segs[2]) != 100 {
		t.Errorf("lengths %d %d %d", len(segs[0]), len(segs[1]), len(segs[2]))
	}
	if _, err := m.FromUser(0x900000+page-8, 16); !errors.Is(err, ErrUnmapped) {
		t.Errorf("a ring across two regions: %v", err)
	}
	mem, err := m.FromUser(0x900000+page, 16)
	if err != nil {
		t.Fatal(err)
	}
	at(t, mem, page)
}

func TestSpecErrors(t *testing.T) {
	fd := memfd(t, 4*page, 0)
	defer fd.Close()
	m := New()
	defer m.Close()
	if err := m.Add(RegionSpec{GPA: 0x100000, Size: page, UserAddr: 1, FD: dup(t, fd)}); err != nil {
		t.Fatal(err)
	}
	bad := []struct {
		name string
		spec RegionSpec
		text string
	}{
		{"size 0", RegionSpec{GPA: 0, Size: 0}, "size 0"},
		{"huge", RegionSpec{GPA: 0, Size: 1 << 53}, "limit"},
		{"address overflow", RegionSpec{GPA: math.MaxUint64 - 10, Size: page}, "overflows"},
		{"user overflow", RegionSpec{UserAddr: math.MaxUint64 - 10, Size: page}, "overflows"},
		{"offset", RegionSpec{Size: page, MmapOffset: math.MaxUint64}, "limit"},
		{"beyond the file", RegionSpec{Size: 4 * page, MmapOffset: page}, "file size"},
		{"overlap", RegionSpec{GPA: 0x100000 - page, Size: 2 * page}, "overlaps"},
		{"same", RegionSpec{GPA: 0x100000, Size: page}, "overlaps"},
	}
	for _, tt := range bad {
		for _, how := range []string{"add", "set"} {
			spec := tt.spec
			spec.FD = dup(t, fd)
			err := error(nil)
			if how == "add" {
				err = m.Add(spec)
			} else {
				err = m.Set([]RegionSpec{
					{GPA: 0x100000, Size: page, UserAddr: 1, FD: dup(t, fd)},
					spec,
					{GPA: 0x900000, Size: page, FD: dup(t, fd)},
				})
			}
			if !errors.Is(err, ErrRegion) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%s %s: %v", how, tt.name, err)
			}
			if m.Regions() != 1 {
				t.Fatalf("%s %s: %d regions after a failure, want the old one", how, tt.name, m.Regions())
			}
		}
	}
	if err := m.Add(RegionSpec{GPA: 0, Size: page}); !errors.Is(err, ErrRegion) {
		t.Errorf("no fd: %v", err)
	}
	if err := m.Remove(RegionSpec{GPA: 0x100000, Size: page, UserAddr: 2}); !errors.Is(err, ErrRegion) {
		t.Errorf("remove with another user address: %v", err)
	}
	if err := m.Remove(RegionSpec{GPA: 0x100000, Size: page, UserAddr: 1, FD: dup(t, fd)}); err != nil {
		t.Errorf("remove: %v", err)
	}
	if m.Regions() != 0 {
		t.Errorf("%d regions left", m.Regions())
	}
	for i := range MaxRegions {
		if err := m.Add(RegionSpec{GPA: uint64(i) << 20, Size: page, UserAddr: uint64(i) << 20, FD: dup(t, fd)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Add(RegionSpec{GPA: 1 << 40, Size: page, FD: dup(t, fd)}); !errors.Is(err, ErrRegion) {
		t.Errorf("region %d: %v", MaxRegions+1, err)
	}
}

// maps counts the mappings of a file in this process.
func maps(t *testing.T, name string) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), name)
}

// TestLazy checks that a region is mapped when it is translated and not before,
// and unmapped when it goes.
func TestLazy(t *testing.T) {
	raw, err := unix.MemfdCreate("lazyregion", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	fd := dmabuf.NewFD(raw, "test")
	if err := unix.Ftruncate(raw, page); err != nil {
		t.Fatal(err)
	}
	m := New()
	if err := m.Add(RegionSpec{GPA: 0, Size: page, FD: fd}); err != nil {
		t.Fatal(err)
	}
	if n := maps(t, "lazyregion"); n != 0 {
		t.Errorf("%d mappings before the first translation", n)
	}
	for range 2 {
		if _, err := m.Segments(nil, 0, 1); err != nil {
			t.Fatal(err)
		}
		if n := maps(t, "lazyregion"); n != 1 {
			t.Errorf("%d mappings after a translation, want 1", n)
		}
	}
	before := m.Epoch()
	m.Close()
	if n := maps(t, "lazyregion"); n != 0 {
		t.Errorf("%d mappings after Close", n)
	}
	if m.Epoch() == before {
		t.Error("the epoch did not change when memory was unmapped")
	}
}

// TestUnmappable is a region whose file cannot be mapped writable, as video memory
// may be: the table takes it, translation fails and is not tried twice.
func TestUnmappable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ro")
	if err := os.WriteFile(path, make([]byte, page), 0o600); err != nil {
		t.Fatal(err)
	}
	raw, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	m := New()
	defer m.Close()
	if err := m.Add(RegionSpec{GPA: 0, Size: page, UserAddr: 4096, FD: dmabuf.NewFD(raw, "read-only file")}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := m.Segments(nil, 0, 1); !errors.Is(err, ErrUnmapped) || !errors.Is(err, unix.EACCES) {
			t.Errorf("translate: %v", err)
		}
	}
	if _, err := m.FromUser(4096, 1); !errors.Is(err, ErrUnmapped) {
		t.Errorf("translate user address: %v", err)
	}
	if m.Sealed() {
		t.Error("an ordinary file counts as sealed")
	}
}

// TestSetKeeps replaces the table by one with the same memory elsewhere: the
// mapping stays where it is.
func TestSetKeeps(t *testing.T) {
	m, fd := pcMap(t)
	segs, err := m.Segments(nil, page, 8)
	if err != nil {
		t.Fatal(err)
	}
	err = m.Set([]RegionSpec{{GPA: 0x80000000, Size: 32 * page, UserAddr: 0x1000, FD: dup(t, fd)}})
	if err != nil {
		t.Fatal(err)
	}
	moved, err := m.Segments(nil, 0x80000000+page, 8)
	if err != nil {
		t.Fatal(err)
	}
	if &moved[0][0] != &segs[0][0] {
		t.Error("the same memory was mapped again")
	}
	at(t, moved[0], page)
	if _, err := m.Segments(nil, page, 8); !errors.Is(err, ErrUnmapped) {
		t.Errorf("the old address still works: %v", err)
	}
}

func TestSeals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		seals int
		want  bool
	}{
		{"qemu", qemuSeals, true},
		{"none, we add it", 0, true},
		{"sealed against sealing", unix.F_SEAL_SEAL, false},
	} {
		fd := memfd(t, page, tt.seals)
		m := New()
		if err := m.Add(RegionSpec{GPA: 0, Size: page, FD: dup(t, fd)}); err != nil {
			t.Fatal(err)
		}
		b, err := m.NewBacking([]Entry{{0, page}})
		if err != nil {
			t.Fatal(err)
		}
		if m.Sealed() != tt.want || b.Sealed() != tt.want {
			t.Errorf("%s: map sealed %t, backing sealed %t, want %t", tt.name, m.Sealed(), b.Sealed(), tt.want)
		}
		got, err := unix.FcntlInt(uintptr(fd.Int()), unix.F_GET_SEALS, 0)
		if err != nil || (got&unix.F_SEAL_SHRINK != 0) != tt.want {
			t.Errorf("%s: seals %#x, %v", tt.name, got, err)
		}
		b.Close()
		m.Close()
		_ = fd.Close()
	}
}

// TestModel compares the map with a list of pages, over random tables.
func TestModel(t *testing.T) {
	fd := memfd(t, 64*page, qemuSeals)
	defer fd.Close()
	rapid.Check(t, func(rt *rapid.T) {
		m := New()
		defer m.Close()
		type spec struct{ gpa, size, off int } // pages
		var table []spec
		model := func(gpaPage int) (filePage int, ok bool) {
			for _, s := range table {
				if gpaPage >= s.gpa && gpaPage < s.gpa+s.size {
					return s.off + gpaPage - s.gpa, true
				}
			}
			return 0, false
		}
		toSpec := func(s spec) RegionSpec {
			return RegionSpec{GPA: uint64(s.gpa) * page, Size: uint64(s.size) * page, UserAddr: uint64(s.gpa)*page + 1<<40, MmapOffset: uint64(s.off) * page}
		}
		draw := func() spec {
			s := spec{gpa: rapid.IntRange(0, 60).Draw(rt, "gpa"), size: rapid.IntRange(1, 20).Draw(rt, "size")}
			s.off = rapid.IntRange(0, 64-s.size).Draw(rt, "off")
			return s
		}
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				s := draw()
				overlaps := slices.ContainsFunc(table, func(o spec) bool { return s.gpa < o.gpa+o.size && o.gpa < s.gpa+s.size })
				rs := toSpec(s)
				rs.FD = dup(t, fd)
				if err := m.Add(rs); (err != nil) != overlaps {
					rt.Fatalf("add %+v to %+v: %v", s, table, err)
				}
				if !overlaps {
					table = append(table, s)
				}
			},
			"remove": func(rt *rapid.T) {
				if len(table) == 0 {
					rt.Skip("empty")
				}
				i := rapid.IntRange(0, len(table)-1).Draw(rt, "which")
				if err := m.Remove(toSpec(table[i])); err != nil {
					rt.Fatal(err)
				}
				table = slices.Delete(table, i, i+1)
			},
			"translate": func(rt *rapid.T) {
				gpa := rapid.IntRange(0, 85*page).Draw(rt, "at")
				n := rapid.IntRange(1, 10*page).Draw(rt, "len")
				segs, err := m.Segments(nil, uint64(gpa), uint64(n))
				whole := true
				for p := gpa / page; p <= (gpa+n-1)/page; p++ {
					_, ok := model(p)
					whole = whole && ok
				}
				if (err == nil) != whole {
					rt.Fatalf("translate %#x+%#x in %+v: %v", gpa, n, table, err)
				}
				if err != nil {
					return
				}
				all := slices.Concat(segs...)
				if len(all) != n {
					rt.Fatalf("%d bytes, want %d", len(all), n)
				}
				for off := (4 - gpa%4) % 4; off+4 <= n; off += 1020 {
					p, _ := model((gpa + off) / page)
					i := (p*page + (gpa+off)%page) / 4
					if got := int(all[off]) | int(all[off+1])<<8 | int(all[off+2])<<16; got != i {
						rt.Fatalf("at %#x: word %d of the file, want %d", gpa+off, got, i)
					}
				}
			},
			"": func(*rapid.T) {
				if m.Regions() != len(table) {
					rt.Fatalf("%d regions, want %d", m.Regions(), len(table))
				}
			},
		})
	})
}

func TestNoAllocs(t *testing.T) {
	m, _ := pcMap(t)
	dst := make([][]byte, 0, 4)
	buf := make([]byte, 64)
	n := testing.AllocsPerRun(100, func() {
		segs, err := m.Segments(dst[:0], 5*page-8, 64)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadAt(buf, segs, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := WriteAt(segs, 0, buf); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations per translation", n)
	}
}

func BenchmarkSegments(b *testing.B) {
	for _, regions := range []int{2, 500} {
		b.Run(fmt.Sprintf("regions=%d", regions), func(b *testing.B) {
			fd := memfd(b, page, qemuSeals)
			defer fd.Close()
			m := New()
			defer m.Close()
			for i := range regions {
				if err := m.Add(RegionSpec{GPA: uint64(i) << 20, Size: page, UserAddr: uint64(i) << 20, FD: dup(b, fd)}); err != nil {
					b.Fatal(err)
				}
			}
			dst := make([][]byte, 0, 4)
			b.ReportAllocs()
			i := uint64(0)
			for b.Loop() {
				i = (i + 7) % uint64(regions)
				if _, err := m.Segments(dst[:0], i<<20+8, 64); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

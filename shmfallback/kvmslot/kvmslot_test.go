package kvmslot

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

const kvmCreateVM = 0xae01 // _IO(KVMIO, 0x01)

// newVM makes an empty virtual machine.
func newVM(t *testing.T) *dmabuf.FD {
	t.Helper()
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this machine has no KVM to make memory slots in: %v", err)
	}
	defer kvm.Close()
	raw, _, errno := unix.Syscall(unix.SYS_IOCTL, kvm.Fd(), kvmCreateVM, 0)
	if errno != 0 {
		t.Skipf("KVM makes no virtual machines here: %v", errno)
	}
	vm := dmabuf.NewFD(int(raw), "kvm vm")
	t.Cleanup(func() { _ = vm.Close() })
	return vm
}

func newSlots(t *testing.T, cfg Config) *Slots {
	t.Helper()
	s, err := New(newVM(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func alloc(t *testing.T, w, h uint32) *dmabuf.Buffer {
	t.Helper()
	b, err := shmfallback.Alloc(w, h, dmabuf.XRGB8888, "kvmslot")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSlots(t *testing.T) {
	s := newSlots(t, Config{First: 5, Max: 3})
	if s.Budget() != 3 {
		t.Fatalf("budget %d", s.Budget())
	}
	b := alloc(t, 64, 64)
	defer b.Release()
	size := uint64(len(b.Mem))
	var maps []*Mapping
	for i := range uint64(3) {
		m, err := s.Map(b, 1<<20+i*size, true)
		if err != nil {
			t.Fatal(err)
		}
		if m.Slot() != 5+uint32(i) || m.Size != size {
			t.Errorf("mapping %d: %+v", i, m)
		}
		maps = append(maps, m)
	}
	if b.References() != 4 || s.Used() != 3 {
		t.Errorf("%d references, %d slots used", b.References(), s.Used())
	}
	if _, err := s.Map(b, 1<<30, true); !errors.Is(err, ErrNoSlot) {
		t.Errorf("a fourth: %v", err)
	}
	if err := errors.Join(maps[1].Unmap(), maps[1].Unmap()); err != nil {
		t.Error(err)
	}
	if _, err := s.Map(b, 1<<20, true); !errors.Is(err, unix.EEXIST) {
		t.Errorf("over another: %v", err)
	}
	if _, err := s.Map(b, 1<<20+1, true); !errors.Is(err, ErrInvalid) {
		t.Errorf("not at a page: %v", err)
	}
	if _, err := s.Map(b, ^uint64(0)&^4095, true); !errors.Is(err, ErrInvalid) {
		t.Errorf("at the end of the address space: %v", err)
	}
	m, err := s.Map(b, 1<<32, true)
	if err != nil || m.Slot() != 6 {
		t.Errorf("the free slot again: %+v, %v", m, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if b.References() != 1 || s.Used() != 0 {
		t.Errorf("after Close: %d references, %d slots", b.References(), s.Used())
	}
	if _, err := s.Map(b, 1<<20, true); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestBudget: KVM's own limit is respected, and what it has can be used.
func TestBudget(t *testing.T) {
	vm := newVM(t)
	have, err := checkExtension(vm, capNrMemslots)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(vm, Config{First: uint32(have)}); !errors.Is(err, ErrInvalid) {
		t.Errorf("first slot %d of %d: %v", have, have, err)
	}
	s, err := New(vm, Config{First: uint32(have) - 2})
	if err != nil || s.Budget() != 2 {
		t.Fatalf("budget %d, %v", s.Budget(), err)
	}
	defer s.Close()
	b := alloc(t, 16, 16)
	defer b.Release()
	for i := range uint64(2) {
		if _, err := s.Map(b, i<<20, i == 0); err != nil {
			t.Errorf("slot %d: %v", i, err)
		}
	}
}

// TestCycles maps and unmaps in random order; the guest's memory lives as long as
// the mapping, though its owner let go.
func TestCycles(t *testing.T) {
	s := newSlots(t, Config{Max: 16})
	rng := rand.New(rand.NewPCG(3, 4))
	var live []*Mapping
	for i := range 2000 {
		if len(live) == s.Budget() || len(live) > 0 && rng.IntN(2) == 0 {
			j := rng.IntN(len(live))
			if err := live[j].Unmap(); err != nil {
				t.Fatal(err)
			}
			live = append(live[:j], live[j+1:]...)
			continue
		}
		b := alloc(t, 16+rng.Uint32N(64), 16)
		m, err := s.Map(b, uint64(i)<<20, true)
		if err != nil {
			t.Fatal(err)
		}
		b.Release()
		live = append(live, m)
	}
	if s.Used() != len(live) {
		t.Errorf("%d slots used, %d mappings", s.Used(), len(live))
	}
}

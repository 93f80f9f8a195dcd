package kvmslot

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Requests of linux/kvm.h; KVMIO is 0xae.
const (
	kvmCheckExtension      = 0xae03     // _IO(KVMIO, 0x03): the value of a capability
	kvmSetUserMemoryRegion = 0x4020ae46 // _IOW(KVMIO, 0x46, struct kvm_userspace_memory_region), 32 bytes

	capNrMemslots = 10 // KVM_CAP_NR_MEMSLOTS: slots a VM has
	memReadonly   = 1 << 1
)

// region is struct kvm_userspace_memory_region.
type region struct {
	slot, flags   uint32
	guestPhysAddr uint64
	memorySize    uint64 // bytes; 0 removes the slot
	userspaceAddr uint64
}

func checkExtension(vm *dmabuf.FD, capability uintptr) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(vm.Int()), kvmCheckExtension, capability)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// setRegion makes, moves or removes a slot. mem is nil when it removes one.
func setRegion(vm *dmabuf.FD, r region, mem []byte) error {
	if mem != nil {
		r.userspaceAddr = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem))))
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(vm.Int()), kvmSetUserMemoryRegion, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return errno
	}
	return nil
}

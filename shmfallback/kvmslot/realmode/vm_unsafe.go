//go:build amd64

package realmode

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Requests of linux/kvm.h, KVMIO is 0xae, and sizes of its x86 structs.
const (
	kvmCreateVM    = 0xae01     // _IO(0x01)
	kvmVCPUMmap    = 0xae04     // _IO(0x04): bytes of struct kvm_run
	kvmCreateVCPU  = 0xae41     // _IO(0x41)
	kvmSetTSSAddr  = 0xae47     // _IO(0x47)
	kvmRun         = 0xae80     // _IO(0x80)
	kvmSetRegs     = 0x4090ae82 // _IOW(0x82, struct kvm_regs), 144 bytes
	kvmGetSregs    = 0x8138ae83 // _IOR(0x83, struct kvm_sregs), 312 bytes
	kvmSetSregs    = 0x4138ae84 // _IOW(0x84, struct kvm_sregs)
	exitReasonAt   = 8          // kvm_run.exit_reason
	exitHLT        = 5          // KVM_EXIT_HLT
	tssAddr        = 0xfffbd000 // three pages that Intel's KVM needs in real mode
	realModeFlags  = 2          // the bit of rflags that is always set
	regRIP, regRFL = 16, 17     // places in struct kvm_regs
)

func kvmIoctl(fd uintptr, req, arg uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, req, arg)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, fmt.Errorf("kvm ioctl %#x: %w", req, errno)
		}
	}
}

// VM is a virtual machine with one CPU and no memory: package kvmslot gives it some. It
// belongs to one OS thread, as KVM wants it of a CPU: callers lock theirs.
type VM struct {
	fd    *dmabuf.FD
	vcpu  *dmabuf.FD
	state []byte // struct kvm_run
}

// New makes a virtual machine whose CPU is in real mode and starts at address ip, below
// 64 KiB. The caller closes it.
func New(ip uint64) (*VM, error) {
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("realmode: %w: %w", ErrNotSupported, err)
	}
	defer func() { _ = kvm.Close() }()
	raw, err := kvmIoctl(kvm.Fd(), kvmCreateVM, 0)
	if err != nil {
		return nil, err
	}
	m := &VM{fd: dmabuf.NewFD(raw, "kvm vm")}
	size, err := kvmIoctl(kvm.Fd(), kvmVCPUMmap, 0)
	if err == nil {
		err = m.addCPU(size, ip)
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *VM) addCPU(size int, ip uint64) error {
	if _, err := kvmIoctl(uintptr(m.fd.Int()), kvmSetTSSAddr, tssAddr); err != nil {
		return err
	}
	raw, err := kvmIoctl(uintptr(m.fd.Int()), kvmCreateVCPU, 0)
	if err != nil {
		return err
	}
	m.vcpu = dmabuf.NewFD(raw, "kvm vcpu")
	if m.state, err = unix.Mmap(raw, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	// A CPU starts at the top of the address space; this one starts at 0:ip. The
	// code segment is the first in struct kvm_sregs: base at 0, selector at 12.
	var sregs [312]byte
	if _, err := kvmIoctl(uintptr(raw), kvmGetSregs, uintptr(unsafe.Pointer(&sregs[0]))); err != nil {
		return err
	}
	clear(sregs[:8])
	clear(sregs[12:14])
	if _, err := kvmIoctl(uintptr(raw), kvmSetSregs, uintptr(unsafe.Pointer(&sregs[0]))); err != nil {
		return err
	}
	var regs [18]uint64
	regs[regRIP], regs[regRFL] = ip, realModeFlags
	_, err = kvmIoctl(uintptr(raw), kvmSetRegs, uintptr(unsafe.Pointer(&regs[0])))
	return err
}

// FD is the VM's descriptor, for kvmslot.New; it stays the VM's.
func (m *VM) FD() *dmabuf.FD { return m.fd }

// Run runs the CPU until it halts. It does not return while the guest does not.
func (m *VM) Run() error {
	if _, err := kvmIoctl(uintptr(m.vcpu.Int()), kvmRun, 0); err != nil {
		return err
	}
	if reason := *(*uint32)(unsafe.Pointer(&m.state[exitReasonAt])); reason != exitHLT {
		return fmt.Errorf("the guest stopped with KVM exit reason %d, not with HLT (%d)", reason, exitHLT)
	}
	return nil
}

// Close destroys the machine. Slots of it must be closed before.
func (m *VM) Close() {
	if m.state != nil {
		_ = unix.Munmap(m.state)
	}
	_ = m.vcpu.Close()
	_ = m.fd.Close()
}

package confine

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ErrNoFilter says that the kernel has no seccomp filters, or that this package has none
// for the machine.
var ErrNoFilter = errors.New("there is no seccomp filter here")

// Filter takes system calls from all threads of the process and those that come: it
// comes after [Exec], in the process that was executed. What it denies fails with EPERM.
//
// It names what is denied, not what is allowed: drivers differ in what they call, and
// LLVM maps and runs code of its own.
func Filter(p Policy) error {
	on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err == nil && on != 1 {
		err = errors.New("the process can gain privileges: it was not executed in a sandbox")
	}
	if err != nil {
		return &OpError{"filter", err}
	}
	return install(p, unix.SECCOMP_FILTER_FLAG_TSYNC)
}

func install(p Policy, flags uintptr) error {
	prog, err := assemble(&machine, p, uint32(unix.Getpid()))
	if err == nil {
		err = setFilter(prog, flags)
	}
	if err != nil {
		return &OpError{"filter", err}
	}
	return nil
}

// arch is what differs between machines.
type arch struct {
	audit  uint32 // AUDIT_ARCH_*; 0: there is no filter
	x32    bool   // numbers from x32Bit on are another ABI's
	denied []uint32
}

// x32Bit is __X32_SYSCALL_BIT (arch/x86/include/uapi/asm/unistd.h).
const x32Bit = 0x40000000

// Places in struct seccomp_data (linux/seccomp.h).
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// arg loads the lower half of an argument (of machines that are little-endian). That is
// all the kernel looks at in those that are checked here: they are of 32 bits, so a filter
// that compared the upper half as well could be led past.
func arg(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offArgs + 8*n, Size: 4} }

// upper loads the upper half: of an address both count.
func upper(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offArgs + 8*n + 4, Size: 4} }

var (
	allow = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	deny  = fail(unix.EPERM)
	// A call of another machine's ABI is no mistake: nothing here was built for one.
	kill = bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}
)

func fail(e unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)}
}

type code = []bpf.Instruction

// when runs the code, which must return, if what was loaded is one of the values.
func when(values []uint32, then ...bpf.Instruction) (c code) {
	for i, v := range values[:len(values)-1] {
		c = append(c, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(values) - 1 - i)})
	}
	c = append(c, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: values[len(values)-1], SkipTrue: uint8(len(then))})
	return append(c, then...)
}

// whenBits is when for a value that has any of the bits.
func whenBits(bits uint32, then ...bpf.Instruction) code {
	return append(code{bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: bits, SkipTrue: uint8(len(then))}}, then...)
}

// namespaces are the flags of clone that make some.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// program returns the filter of one machine for the process pid.
func program(a *arch, p Policy, pid uint32) code {
	c := code{bpf.LoadAbsolute{Off: offArch, Size: 4}}
	c = append(c, bpf.JumpIf{Cond: bpf.JumpEqual, Val: a.audit, SkipTrue: 1}, kill, bpf.LoadAbsolute{Off: offNumber, Size: 4})
	if a.x32 {
		c = append(c, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32Bit, SkipTrue: 1}, deny)
	}
	// Those of which some are denied. Drivers call ioctl most, so it comes first.
	c = append(c, when([]uint32{unix.SYS_IOCTL}, slices.Concat(
		code{arg(1)},
		// They write into a terminal as if its user had typed, or change what it does.
		when([]uint32{unix.TIOCSTI, unix.TIOCLINUX, unix.TIOCSETD, unix.TIOCCONS}, deny),
		code{allow})...)...)
	c = append(c, when([]uint32{unix.SYS_CLONE}, slices.Concat(
		code{arg(0)},
		whenBits(namespaces, deny),
		whenBits(unix.CLONE_THREAD, allow),
		code{deny})...)...)
	// A filter cannot look at its flags. The C library tries clone then.
	c = append(c, when([]uint32{unix.SYS_CLONE3}, fail(unix.ENOSYS))...)
	c = append(c, when([]uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR}, sockets(p)...)...)
	// Connections, and what makes one by sending. An address that sendmsg has cannot be
	// looked at, and there are no sockets here that would take one.
	c = append(c, when([]uint32{unix.SYS_CONNECT}, deny)...)
	c = append(c, when([]uint32{unix.SYS_SENDTO},
		arg(4), bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1}, deny,
		upper(4), bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1}, deny,
		allow)...)
	c = append(c, when([]uint32{unix.SYS_SENDMSG}, slices.Concat(code{arg(2)}, whenBits(unix.MSG_FASTOPEN, deny), code{allow})...)...)
	c = append(c, when([]uint32{unix.SYS_SENDMMSG}, slices.Concat(code{arg(3)}, whenBits(unix.MSG_FASTOPEN, deny), code{allow})...)...)
	c = append(c, when([]uint32{unix.SYS_KILL, unix.SYS_TGKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO}, slices.Concat(
		code{arg(0)}, when([]uint32{pid}, allow), code{deny})...)...)
	c = append(c, when([]uint32{unix.SYS_PRLIMIT64}, slices.Concat(
		code{arg(0)}, when([]uint32{0, pid}, allow), code{deny})...)...)
	for _, nr := range slices.Concat(denied, a.denied) {
		c = append(c, when([]uint32{nr}, deny)...)
	}
	return append(c, allow)
}

// sockets allows the kinds of sockets that the policy needs, all of them with connections.
func sockets(p Policy) code {
	kind := code{arg(1), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf}} // SOCK_TYPE_MASK
	local := slices.Concat(kind, when([]uint32{unix.SOCK_STREAM, unix.SOCK_SEQPACKET}, allow), code{deny})
	c := append(code{arg(0)}, when([]uint32{unix.AF_UNIX}, local...)...)
	if p.VSock {
		c = append(c, when([]uint32{unix.AF_VSOCK}, local...)...)
	}
	if p.Bind {
		tcp := slices.Concat(kind, when([]uint32{unix.SOCK_STREAM}, slices.Concat(
			code{arg(2)}, when([]uint32{0, unix.IPPROTO_TCP}, allow), code{deny})...), code{deny})
		c = append(c, when([]uint32{unix.AF_INET, unix.AF_INET6}, tcp...)...)
	}
	return append(c, deny)
}

func assemble(a *arch, p Policy, pid uint32) ([]bpf.RawInstruction, error) {
	if a.audit == 0 {
		return nil, ErrNoFilter
	}
	prog, err := bpf.Assemble(program(a, p, pid))
	if err != nil {
		return nil, fmt.Errorf("assemble: %w", err)
	}
	return prog, nil
}

package confine

import "golang.org/x/sys/unix"

// machine has the calls that only x86 has; what they do, those in denied do elsewhere.
var machine = arch{audit: unix.AUDIT_ARCH_X86_64, x32: true, denied: []uint32{
	unix.SYS_FORK, unix.SYS_VFORK,
	unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT, unix.SYS_INOTIFY_INIT,
	unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_USELIB,
}}

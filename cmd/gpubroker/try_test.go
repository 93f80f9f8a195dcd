package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker"
)

// tryEnv has a worker of a test try what a program could try that has taken it over. Its
// value is a folder with a file, the addresses of a TCP server and an abstract socket, and
// a process.
const tryEnv = "GPUBROKER_TEST_TRY"

// outside is what the tries are about.
type outside struct {
	dir, tcp, abstract string
	pid                int
}

// tries is what it tries, by name.
var tries = map[string]func(o outside) error{
	"read a file":             func(o outside) error { _, err := os.ReadFile(o.secret()); return err },
	"write a file":            func(o outside) error { return os.WriteFile(filepath.Join(o.dir, "new"), nil, 0o600) },
	"write beside its socket": func(o outside) error { return os.WriteFile(filepath.Join(o.dir, "run", "new"), nil, 0o600) },
	"read beside its socket":  func(o outside) error { return closed(os.Open(filepath.Join(o.dir, "run", "secret"))) },
	"list its sockets":        func(o outside) error { _, err := os.ReadDir(filepath.Join(o.dir, "run")); return err },
	"list the root":           func(outside) error { _, err := os.ReadDir("/"); return err },
	"cut a file":              func(o outside) error { return os.Truncate(o.secret(), 1) },
	"change a mode":           func(o outside) error { return os.Chmod(o.secret(), 0o600) },
	"change an owner":         func(o outside) error { return os.Chown(o.secret(), os.Geteuid(), os.Getegid()) },
	"change a time":           func(o outside) error { return os.Chtimes(o.secret(), time.Time{}, time.Now()) },
	"change an attribute":     func(o outside) error { return allowed(unix.Removexattr(o.secret(), "user.none")) },
	"watch a file":            func(o outside) error { return watch(o.secret()) },

	"run a program":        func(outside) error { return exec.Command("/bin/true").Run() },
	"become a program":     func(outside) error { return allowed(unix.Exec("/nonexistent", nil, nil)) },
	"become a program (2)": func(outside) error { return call(unix.SYS_EXECVEAT, ^uintptr(0)) },

	"connect":              func(o outside) error { return closed(net.Dial("tcp", o.tcp)) },
	"connect by UDP":       func(o outside) error { return closed(net.Dial("udp", o.tcp)) },
	"connect abstractly":   func(o outside) error { return closed(net.Dial("unix", o.abstract)) },
	"connect by path":      func(o outside) error { return closed(net.Dial("unix", filepath.Join(o.dir, "bus"))) },
	"send by path":         func(o outside) error { return datagram(filepath.Join(o.dir, "log")) },
	"listen":               func(outside) error { return listening(true) },
	"listen without MPTCP": func(outside) error { return listening(false) }, // which landlock does not look at, and is Go's default
	"ask the network":      func(outside) error { return socket(unix.AF_NETLINK, unix.SOCK_RAW) },
	"send raw packets":     func(outside) error { return socket(unix.AF_PACKET, unix.SOCK_RAW) },

	"kill another":           func(o outside) error { return syscall.Kill(o.pid, 0) },
	"kill another's thread":  func(o outside) error { return unix.Tgkill(o.pid, o.pid, 0) },
	"limit another":          func(o outside) error { return unix.Prlimit(o.pid, unix.RLIMIT_CORE, nil, &unix.Rlimit{}) },
	"read its memory":        func(o outside) error { return closed(os.Open(fmt.Sprintf("/proc/%d/mem", o.pid))) },
	"read environment":       func(o outside) error { return environ(o.pid) },
	"trace":                  func(outside) error { return call(unix.SYS_PTRACE, unix.PTRACE_PEEKDATA, 0) },
	"read another's memory":  func(o outside) error { return call(unix.SYS_PROCESS_VM_READV, uintptr(o.pid)) },
	"write another's memory": func(o outside) error { return call(unix.SYS_PROCESS_VM_WRITEV, uintptr(o.pid)) },
	"take a descriptor":      func(outside) error { return call(unix.SYS_PIDFD_GETFD, ^uintptr(0)) },
	"find shared memory":     func(outside) error { return call(unix.SYS_SHMGET, 0x67707562, 4096, 0) },

	"unshare":          func(outside) error { return unix.Unshare(0) },
	"join a namespace": func(outside) error { return call(unix.SYS_SETNS, ^uintptr(0)) },
	"mount":            func(outside) error { return allowed(unix.Mount("none", "/nonexistent", "tmpfs", 0, "")) },
	"unmount":          func(outside) error { return allowed(unix.Unmount("/nonexistent", 0)) },
	"change the root":  func(outside) error { return allowed(unix.Chroot("/nonexistent")) },
	"become another":   func(outside) error { return call(unix.SYS_SETRESUID, ^uintptr(0), ^uintptr(0), ^uintptr(0)) },
	"use keys":         func(outside) error { return call(unix.SYS_KEYCTL, 0xffff) },
	"personality":      func(outside) error { return call(unix.SYS_PERSONALITY, 0xffffffff) },

	"bpf":         func(outside) error { return call(unix.SYS_BPF, 0xffff) },
	"perf":        func(outside) error { return call(unix.SYS_PERF_EVENT_OPEN) },
	"userfaultfd": func(outside) error { return call(unix.SYS_USERFAULTFD, 0xffff) },
	"io_uring":    func(outside) error { return call(unix.SYS_IO_URING_SETUP) },
	"swap":        func(outside) error { return call(unix.SYS_SWAPOFF) },
	"reboot":      func(outside) error { return call(unix.SYS_REBOOT, 1) },
	"type for the user": func(outside) error {
		return call(unix.SYS_IOCTL, 0, unix.TIOCSTI)
	},
	"clone3": func(outside) error { // which must look as if it did not exist
		if _, _, err := syscall.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); err == unix.ENOSYS { //nolint:errorlint // an errno
			return err
		}
		return nil
	},
	"call as x32": func(outside) error {
		if runtime.GOARCH != "amd64" {
			return unix.EPERM // without a sandbox, too: see privileged
		}
		return call(unix.SYS_GETPID | 0x40000000)
	},
}

// privileged are the tries that fail anyway where the user, the kernel's settings or the
// machine does not let them.
var privileged = map[string]bool{
	"send raw packets": true, "change the root": true, "mount": true, "unmount": true, "bpf": true, "perf": true, "userfaultfd": true,
	"io_uring": true, "swap": true, "reboot": true, "call as x32": true, "join a namespace": true,
}

func (o outside) secret() string { return filepath.Join(o.dir, "secret") }

// allowed leaves of an error what a seccomp filter says: a try whose arguments make no
// sense does no harm, and comes as far as the kernel's own checks.
func allowed(err error) error {
	if errors.Is(err, unix.EPERM) {
		return err
	}
	return nil
}

func call(nr uintptr, args ...uintptr) error {
	var a [3]uintptr
	copy(a[:], args)
	if _, _, errno := syscall.Syscall(nr, a[0], a[1], a[2]); errno == unix.EPERM {
		return errno
	}
	return nil
}

func watch(path string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.InotifyAddWatch(fd, path, unix.IN_ATTRIB)
	return err
}

func datagram(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Sendto(fd, []byte("x"), unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: path})
}

func socket(family, typ int) error {
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

func listening(mptcp bool) error {
	var c net.ListenConfig
	c.SetMultipathTCP(mptcp)
	return closed(c.Listen(context.Background(), "tcp", "127.0.0.1:0"))
}

// environ reads another process' environment, which is empty for who may not.
func environ(pid int) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err == nil && len(text) == 0 {
		err = os.ErrPermission
	}
	return err
}

func closed[T interface{ Close() error }](c T, err error) error {
	if err == nil {
		_ = c.Close()
	}
	return err
}

// tryAll is the worker's part of TestSandbox: it writes what came out to its log.
func tryAll() {
	where := os.Getenv(tryEnv)
	if where == "" {
		return
	}
	changeConfig = func(*broker.Config) {
		f := strings.Split(where, " ")
		pid, _ := strconv.Atoi(f[3])
		for name, try := range tries {
			fmt.Fprintf(os.Stderr, "try %s: %v\n", name, try(outside{f[0], f[1], f[2], pid}))
		}
	}
}

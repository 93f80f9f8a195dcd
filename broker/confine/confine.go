package confine

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Policy is what the process keeps. Paths that do not exist are left out.
type Policy struct {
	Read    []string // files and folders that can be read
	Devices []string // that can be read, written and asked (ioctl)
	Sockets []string // folders in which sockets can be made and removed
	Folders []string // folders in which also folders can
	Bind    bool     // TCP ports can be listened on
	VSock   bool     // AF_VSOCK sockets can be made
}

// OpError is the error type of this package.
type OpError struct {
	Op  string // "restrict", "execute"
	Err error
}

func (e *OpError) Error() string { return "confine: " + e.Op + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }

// ErrNotSupported says that the kernel has no landlock, or that it is off.
var ErrNotSupported = errors.New("this kernel has no landlock")

// Default is what virglrenderer and Mesa need.
func Default() Policy {
	p := Policy{
		Read: []string{"/usr", "/lib", "/lib32", "/lib64", "/etc", "/proc", "/sys", "/run/udev", "/dev/null", "/dev/urandom"},
		Devices: []string{
			"/dev/dri", "/dev/udmabuf", "/dev/dma_heap", "/dev/null", "/dev/zero", "/dev/kfd",
		},
	}
	nvidia, _ := filepath.Glob("/dev/nvidia*") // only a bad pattern fails
	p.Devices = append(p.Devices, nvidia...)
	for _, name := range []string{"LD_LIBRARY_PATH", "LIBGL_DRIVERS_PATH", "GBM_BACKENDS_PATH", "__EGL_VENDOR_LIBRARY_DIRS"} {
		p.Read = append(p.Read, filepath.SplitList(os.Getenv(name))...)
	}
	return p
}

// Missing says what the kernel cannot take away of what the package knows; it fails if
// there is no sandbox at all.
func Missing() ([]string, error) {
	v, err := version()
	if err == nil {
		err = filters()
	}
	if err != nil {
		return nil, &OpError{"look at the kernel", err}
	}
	return missing(v), nil
}

// missing is Missing for a version of landlock. What the filter takes as well (connections,
// signals, cutting files by path) is not among it.
func missing(v int) (m []string) {
	if v < 5 {
		m = append(m, "ioctls of devices that can only be read")
	}
	return m
}

// Supported reports whether the kernel can take away all that the package knows.
func Supported() bool {
	m, err := Missing()
	return err == nil && len(m) == 0
}

// What kinds of access a rule gives. Rights that a kernel does not know are masked.
const (
	readFile   = unix.LANDLOCK_ACCESS_FS_READ_FILE
	readFolder = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	useDevice  = readFile | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	makeSocket = unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
	makeFolder = unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR
	// fileOnly are those that a rule for a file may have.
	fileOnly = unix.LANDLOCK_ACCESS_FS_EXECUTE | readFile | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// handled returns the rights that a version of landlock can take away. Connecting to
// sockets with a path (version 9) is left: the compositor's is one.
func handled(abi int) unix.LandlockRulesetAttr {
	a := unix.LandlockRulesetAttr{Handled_access_fs: 1<<13 - 1} // up to MAKE_SYM
	if abi >= 2 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 4 {
		a.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= 5 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 6 {
		a.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return a
}

// Exec restricts the process and executes its own program again with these arguments and
// this environment; it returns only with an error, and the process must end then.
// Descriptors that are not close-on-exec stay, with all that can be done with them.
func Exec(p Policy, argv, env []string) error {
	runtime.LockOSThread() // for good: this thread is restricted
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return &OpError{"find the program", err}
	}
	if err := restrict(p, exe); err != nil {
		return &OpError{"restrict", err}
	}
	// A core holds what the guest drew, and nobody may write one. 1 byte is as good as none
	// for a file, and the only limit that keeps the kernel from piping one to a program.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}); err != nil {
		return &OpError{"limit core files", err}
	}
	return &OpError{"execute " + exe, unix.Exec(exe, argv, env)}
}

func restrict(p Policy, exe string) error {
	abi, err := version()
	if err != nil {
		return err
	}
	attr := handled(abi)
	if p.Bind {
		attr.Handled_access_net &^= unix.LANDLOCK_ACCESS_NET_BIND_TCP
	}
	set, err := createRuleset(&attr)
	if err != nil {
		return fmt.Errorf("create a ruleset: %w", err)
	}
	defer func() { _ = unix.Close(set) }()
	for _, rule := range []struct {
		paths  []string
		access uint64
	}{
		{p.Read, readFolder},
		{p.Devices, useDevice | readFolder},
		{p.Sockets, makeSocket},
		{p.Folders, makeFolder | makeSocket | readFolder},
		{[]string{exe, interpreter(exe)}, unix.LANDLOCK_ACCESS_FS_EXECUTE | readFile},
	} {
		for _, path := range rule.paths {
			if err := addPath(set, path, rule.access&attr.Handled_access_fs); err != nil {
				return err
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := restrictSelf(set); err != nil {
		return fmt.Errorf("restrict the thread: %w", err)
	}
	return nil
}

// interpreter returns the dynamic linker that the kernel executes with a program; empty
// if there is none.
func interpreter(exe string) string {
	f, err := elf.Open(exe)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > unix.PathMax {
			continue
		}
		path := make([]byte, p.Filesz)
		if _, err := p.ReadAt(path, 0); err == nil {
			return strings.TrimRight(string(path), "\x00")
		}
	}
	return ""
}

// addPath adds a rule for a path, if it exists.
func addPath(set int, path string, access uint64) error {
	if path == "" {
		return nil
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= fileOnly
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	if err := addRule(set, &rule); err != nil {
		return fmt.Errorf("rule for %s: %w", path, err)
	}
	return nil
}

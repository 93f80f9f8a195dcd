package confine

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

const filteredEnv = "GPUBROKER_TEST_FILTERED"

// TestMain is a process that takes itself what TestFilter looks at.
func TestMain(m *testing.M) {
	if os.Getenv(filteredEnv) != "" {
		filtered()
	}
	fdtest.Main(m)
}

// verdict runs the filter on a system call. The interpreter reads what it loads as network
// byte order, so the words stand in it.
func verdict(t *testing.T, a *arch, p Policy, audit uint32, nr uint32, args ...uint64) uint32 {
	t.Helper()
	vm, err := bpf.NewVM(program(a, p, 4711))
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offNumber:], nr)
	binary.BigEndian.PutUint32(data[offArch:], audit)
	for i, v := range args {
		binary.BigEndian.PutUint32(data[offArgs+8*i:], uint32(v))
		binary.BigEndian.PutUint32(data[offArgs+8*i+4:], uint32(v>>32))
	}
	n, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// TestProgram: each call that is denied is, whatever its arguments; of those that are
// looked at, what a renderer needs is allowed and the rest is not.
func TestProgram(t *testing.T) {
	if machine.audit == 0 {
		t.Skip("no filter for this machine")
	}
	const (
		ok     = unix.SECCOMP_RET_ALLOW
		no     = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
		noSys  = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		upper  = 0xdeadbeef << 32 // what the kernel does not look at
		thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
		minus1 = 1<<64 - 1
	)
	all := Policy{Bind: true, VSock: true}
	for _, c := range []struct {
		name string
		p    Policy
		nr   uint32
		args []uint64
		want uint32
	}{
		{"mmap", Policy{}, unix.SYS_MMAP, []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC}, ok},
		{"mprotect", Policy{}, unix.SYS_MPROTECT, []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, ok},
		{"openat", Policy{}, unix.SYS_OPENAT, nil, ok},
		{"connect", all, unix.SYS_CONNECT, []uint64{3}, no},
		{"send", Policy{}, unix.SYS_SENDTO, []uint64{3, 1, 1, 0, 0, 0}, ok},
		{"send to", all, unix.SYS_SENDTO, []uint64{3, 1, 1, 0, 0x1000, 16}, no},
		{"send to far away", all, unix.SYS_SENDTO, []uint64{3, 1, 1, 0, 1 << 32, 16}, no},
		{"send a message", Policy{}, unix.SYS_SENDMSG, []uint64{3, 1, unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT}, ok},
		{"send to open", all, unix.SYS_SENDMSG, []uint64{3, 1, unix.MSG_FASTOPEN}, no},
		{"send many to open", all, unix.SYS_SENDMMSG, []uint64{3, 1, 1, unix.MSG_FASTOPEN}, no},
		{"unix datagrams", all, unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC}, no},
		{"unix datagrams by another name", all, unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_RAW}, no},
		{"vsock datagrams", all, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK, unix.SOCK_DGRAM}, no},
		{"ftruncate", Policy{}, unix.SYS_FTRUNCATE, nil, ok},
		{"a number that is not used yet", Policy{}, 4000, nil, ok},
		{"drm", Policy{}, unix.SYS_IOCTL, []uint64{3, 0xc0406400}, ok},
		{"tiocsti", Policy{}, unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}, no},
		{"tiocsti with an upper half", Policy{}, unix.SYS_IOCTL, []uint64{0, upper | unix.TIOCSTI}, no},
		{"tioclinux", Policy{}, unix.SYS_IOCTL, []uint64{0, unix.TIOCLINUX}, no},
		{"a thread of Go or C", Policy{}, unix.SYS_CLONE, []uint64{thread | unix.CLONE_SETTLS}, ok},
		{"a thread with namespaces", Policy{}, unix.SYS_CLONE, []uint64{thread | unix.CLONE_NEWNET}, no},
		{"a process", Policy{}, unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, no},
		{"a process, with an upper half", Policy{}, unix.SYS_CLONE, []uint64{upper | uint64(unix.SIGCHLD)}, no},
		{"a process as Go makes them", Policy{}, unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}, no},
		{"a user namespace", Policy{}, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, no},
		{"clone3", Policy{}, unix.SYS_CLONE3, nil, noSys},
		{"unix", Policy{}, unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_STREAM | unix.SOCK_CLOEXEC}, ok},
		{"unix pair", Policy{}, unix.SYS_SOCKETPAIR, []uint64{unix.AF_UNIX, unix.SOCK_SEQPACKET}, ok},
		{"tcp", Policy{}, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM}, no},
		{"vsock", Policy{}, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK, unix.SOCK_STREAM}, no},
		{"netlink", all, unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW}, no},
		{"alg", all, unix.SYS_SOCKET, []uint64{unix.AF_ALG, unix.SOCK_SEQPACKET}, no},
		{"tipc pair", all, unix.SYS_SOCKETPAIR, []uint64{unix.AF_TIPC, unix.SOCK_STREAM}, no},
		{"vsock that is wanted", all, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK, unix.SOCK_STREAM}, ok},
		{"tcp that is wanted", all, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, unix.IPPROTO_TCP}, ok},
		{"tcp 6 that is wanted", all, unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_STREAM, 0}, ok},
		{"mptcp", all, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM, 262}, no},
		{"udp", all, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_DGRAM, 0}, no},
		{"raw", all, unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_TCP}, no},
		{"own signal", Policy{}, unix.SYS_TGKILL, []uint64{4711, 4712, 6}, ok},
		{"own signal, with an upper half", Policy{}, unix.SYS_KILL, []uint64{upper | 4711, 6}, ok},
		{"another's signal", Policy{}, unix.SYS_KILL, []uint64{1, 9}, no},
		{"all signals", Policy{}, unix.SYS_KILL, []uint64{minus1, 9}, no},
		{"the group's signals", Policy{}, unix.SYS_KILL, []uint64{0, 9}, no},
		{"another's thread", Policy{}, unix.SYS_TGKILL, []uint64{1, 1, 9}, no},
		{"own limit", Policy{}, unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_NOFILE}, ok},
		{"another's limit", Policy{}, unix.SYS_PRLIMIT64, []uint64{1, unix.RLIMIT_NOFILE}, no},
	} {
		if got := verdict(t, &machine, c.p, machine.audit, c.nr, c.args...); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
	list := slices.Concat(denied, machine.denied)
	for _, nr := range list {
		if got := verdict(t, &machine, all, machine.audit, nr, 4711, 4711, 4711); got != no {
			t.Errorf("call %d: %#x, want %#x", nr, got, no)
		}
	}
	slices.Sort(list)
	if len(slices.Compact(list)) != len(denied)+len(machine.denied) {
		t.Error("a call stands twice in the list")
	}
	// i386, and the other of the two machines: the same numbers mean something else there.
	for _, audit := range []uint32{unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_X86_64 ^ unix.AUDIT_ARCH_AARCH64 ^ machine.audit, 0} {
		if got := verdict(t, &machine, all, audit, unix.SYS_GETPID); got != unix.SECCOMP_RET_KILL_PROCESS {
			t.Errorf("a call of machine %#x: %#x", audit, got)
		}
	}
	if x86 := (arch{audit: unix.AUDIT_ARCH_X86_64, x32: true}); verdict(t, &x86, all, x86.audit, x32Bit|39) != no || verdict(t, &x86, all, x86.audit, 39) != ok {
		t.Error("x32 is not refused")
	}
	if prog, err := assemble(&machine, all, 1); err != nil || len(prog) > 4096 { // BPF_MAXINSNS
		t.Errorf("%d instructions, %v", len(prog), err)
	}
}

// filtered is the process of TestFilter.
func filtered() {
	if os.Getenv(filteredEnv) != "unsafe" {
		_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	fmt.Println("filter:", Filter(Policy{}))
	// A thread that comes later, and those from before.
	done := make(chan error)
	go func() { done <- unix.Unshare(0) }()
	fmt.Println("unshare:", <-done)
	tasks, _ := os.ReadDir("/proc/self/task")
	n := 0
	for _, task := range tasks {
		status, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
		if strings.Contains(string(status), "\nSeccomp:\t2\n") {
			n++
		}
	}
	fmt.Println("all threads:", n > 1 && n == len(tasks))
	fmt.Println("execute:", exec.Command("/bin/true").Run() == nil)
	fmt.Println(jit(own))
	if os.Getenv(filteredEnv) == "leave" {
		fmt.Println(jit(foreign))
	}
	os.Exit(0)
}

// TestFilter: the kernel takes the filter, for all threads, and only where no privileges
// can be gained.
func TestFilter(t *testing.T) {
	if err := filters(); err != nil {
		t.Skip(err)
	}
	ask := func(mode string) (string, *os.ProcessState) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), filteredEnv+"="+mode)
		out, err := cmd.CombinedOutput()
		t.Logf("%s: %v\n%s", mode, err, out)
		return string(out), cmd.ProcessState
	}
	if out, _ := ask("safe"); out != "filter: <nil>\nunshare: operation not permitted\nall threads: true\nexecute: false\n42 <nil>\n" {
		t.Error("the filter is not what it should be")
	}
	if out, _ := ask("unsafe"); !strings.HasPrefix(out, "filter: confine: filter: the process can gain privileges") || !strings.Contains(out, "execute: true") {
		t.Error("a process outside a sandbox got a filter")
	}
	if !hasForeign {
		return
	}
	out, st := ask("leave")
	switch {
	case strings.Contains(st.String(), "segmentation"):
		t.Log("this kernel has no i386 calls")
	case !strings.Contains(st.String(), "bad system call") || !strings.HasSuffix(out, "42 <nil>\n"):
		t.Errorf("a call of another ABI: %v", st)
	}
}

// TestMissing: what an old landlock leaves is said, as far as a filter does not take it.
func TestMissing(t *testing.T) {
	for _, c := range []struct {
		version, want int
	}{{1, 1}, {4, 1}, {5, 0}, {99, 0}} {
		if got := missing(c.version); len(got) != c.want {
			t.Errorf("version %d: %q", c.version, got)
		}
	}
}

package dl

import (
	"bytes"
	"errors"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	l, err := Open(Spec{Sonames: []string{"libnosuch.so.1", "libc.so.6"}, Package: "libc6"})
	if err != nil {
		t.Fatal(err)
	}
	if l.Name() != "libc.so.6" {
		t.Errorf("loaded %q, want the second name", l.Name())
	}
}

func TestOpenMissing(t *testing.T) {
	_, err := Open(Spec{Sonames: []string{"libnosuch.so.1", "libnosuch.so.2"}, Package: "libnosuch2"})
	if !errors.Is(err, ErrMissing) {
		t.Fatalf("%v, want ErrMissing", err)
	}
	for _, want := range []string{"libnosuch.so.1", "libnosuch.so.2", "Debian package libnosuch2"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestResolve(t *testing.T) {
	l, err := Open(Spec{Sonames: []string{"libc.so.6"}, Package: "libc6"})
	if err != nil {
		t.Fatal(err)
	}
	var getpid, none uintptr
	if err := l.Resolve([]Symbol{{Name: "getpid", Addr: &getpid}, {Name: "no_such_thing", Addr: &none, Optional: true}}); err != nil {
		t.Fatal(err)
	}
	if none != 0 {
		t.Errorf("an optional symbol that is absent has address %#x", none)
	}
	if pid, _, _ := purego.SyscallN(getpid); int(pid) != unix.Getpid() {
		t.Errorf("getpid says %d, want %d", pid, unix.Getpid())
	}
	err = l.Resolve([]Symbol{{Name: "no_such_a", Addr: &none}, {Name: "getpid", Addr: &getpid}, {Name: "no_such_b", Addr: &none}})
	if !errors.Is(err, ErrSymbol) {
		t.Fatalf("%v, want ErrSymbol", err)
	}
	for _, want := range []string{"no_such_a", "no_such_b", "libc.so.6", "libc6"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestMemory(t *testing.T) {
	p := Malloc(100)
	b := Bytes(p, 100)
	copy(b, "hello\x00rest")
	if Addr(b) != p {
		t.Errorf("address %#x, want %#x", Addr(b), p)
	}
	if got := String(p, 64); got != "hello" {
		t.Errorf("string %q", got)
	}
	if got := String(p, 3); got != "hel" {
		t.Errorf("string of 3 bytes: %q", got)
	}
	Free(p)
	Free(0)
	if String(0, 10) != "" || Bytes(0, 10) != nil || Bytes(p, 0) != nil {
		t.Error("nothing is not empty")
	}
	c := CString("text")
	if got := Bytes(c, 5); !bytes.Equal(got, []byte("text\x00")) {
		t.Errorf("C string %q", got)
	}
	Free(c)
}

func TestErrno(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l, err := Open(Spec{Sonames: []string{"libc.so.6"}, Package: "libc6"})
	if err != nil {
		t.Fatal(err)
	}
	var closeFn uintptr
	if err := l.Resolve([]Symbol{{Name: "close", Addr: &closeFn}}); err != nil {
		t.Fatal(err)
	}
	ClearErrno()
	if e := Errno(); e != 0 {
		t.Errorf("errno %v after ClearErrno", e)
	}
	bad := int64(-1)
	if r, _, _ := purego.SyscallN(closeFn, uintptr(bad)); int32(r) != -1 {
		t.Fatalf("close(-1) returned %d", int32(r))
	}
	if e := Errno(); e != unix.EBADF {
		t.Errorf("errno %v, want EBADF", e)
	}
}

// TestFormat renders a va_list made by hand, in the System V layout of amd64. The
// renderer's log test has real ones.
func TestFormat(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("makes a va_list by hand, in the layout of amd64 only")
	}
	// struct { uint32 gp_offset, fp_offset; void *overflow_arg_area, *reg_save_area }:
	// offsets past the registers, so that all arguments come from the overflow area.
	text, args, list := CString("world"), Malloc(16), Malloc(24)
	format := CString("hello %s %d")
	defer func() {
		for _, p := range []uintptr{text, args, list, format} {
			Free(p)
		}
	}()
	put64(Bytes(args, 16), uint64(text))
	put64(Bytes(args, 16)[8:], 42)
	put64(Bytes(list, 24), 48|304<<32)
	put64(Bytes(list, 24)[8:], uint64(args))
	put64(Bytes(list, 24)[16:], 0)
	if got := Format(format, list, 64); got != "hello world 42" {
		t.Errorf("formatted %q", got)
	}
	put64(Bytes(list, 24), 48|304<<32)
	put64(Bytes(list, 24)[8:], uint64(args))
	if got := Format(format, list, 5); got != "hello" {
		t.Errorf("formatted to 5 bytes: %q", got)
	}
}

func put64(p []byte, v uint64) {
	for i := range 8 {
		p[i] = byte(v >> (8 * i))
	}
}

// TestNoCgo asserts that the loader does not pull in runtime/cgo, which does not link
// with purego when cgo is off.
func TestNoCgo(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "github.com/gpubroker/gpubroker/virgl", "github.com/gpubroker/gpubroker/gbm")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, dep := range strings.Fields(string(out)) {
		if dep == "runtime/cgo" || strings.Contains(dep, "go-gl") {
			t.Errorf("%s is linked in without cgo", dep)
		}
	}
}

package dmabuf

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// FD is an owned file descriptor: exactly one holder, who calls Close or passes
// it on. It is safe for concurrent use, but closing while another goroutine is
// inside a system call with Int's value is the caller's race, as with any fd.
//
// An FD that becomes unreachable without Close is closed by the garbage
// collector and reported to the hook of [OnLeak].
type FD struct {
	*fdState
}

type fdState struct {
	raw     atomic.Int64 // -1 once closed or disowned
	name    string
	trace   []uintptr // creation stack, recorded only while tracing
	cleanup runtime.Cleanup
}

var (
	leakHook atomic.Pointer[func(string)]
	tracing  atomic.Bool

	openMu sync.Mutex
	open   = map[*fdState]struct{}{} // guarded by openMu, filled only while tracing
)

// NewFD takes ownership of raw. The name says what the descriptor is, for leak
// reports and logs ("memfd scanout", "kick 0"). It panics on a negative raw:
// callers check the system call first.
func NewFD(raw int, name string) *FD {
	if raw < 0 {
		panic(fmt.Sprintf("dmabuf: NewFD(%d, %q): not a descriptor", raw, name))
	}
	st := &fdState{name: name}
	st.raw.Store(int64(raw))
	f := &FD{st}
	if tracing.Load() {
		pcs := make([]uintptr, 16)
		st.trace = pcs[:runtime.Callers(2, pcs)]
		openMu.Lock()
		open[st] = struct{}{}
		openMu.Unlock()
	}
	st.cleanup = runtime.AddCleanup(f, reportLeak, st)
	return f
}

func reportLeak(st *fdState) {
	raw := st.take()
	if raw < 0 {
		return
	}
	_ = unix.Close(raw)
	if hook := leakHook.Load(); hook != nil {
		(*hook)(fmt.Sprintf("fd %d (%s) was garbage collected while open%s", raw, st.name, st.stack()))
	}
}

// OnLeak sets the function that hears of descriptors lost without Close. It is
// called on the runtime's clean-up goroutine.
func OnLeak(hook func(report string)) { leakHook.Store(&hook) }

// Trace turns on recording of creation stacks and of the set that [OpenFDs]
// lists. Tests use it through fdtest; it costs a few microseconds per FD.
func Trace(on bool) { tracing.Store(on) }

// OpenFDs describes every FD made since [Trace] was turned on and not closed yet.
func OpenFDs() []string {
	openMu.Lock()
	defer openMu.Unlock()
	var out []string
	for st := range open {
		out = append(out, fmt.Sprintf("fd %d (%s)%s", st.raw.Load(), st.name, st.stack()))
	}
	return out
}

func (st *fdState) stack() string {
	if len(st.trace) == 0 {
		return ""
	}
	s := ""
	frames := runtime.CallersFrames(st.trace)
	for {
		fr, more := frames.Next()
		s += fmt.Sprintf("\n\t%s\n\t\t%s:%d", fr.Function, fr.File, fr.Line)
		if !more {
			return s
		}
	}
}

// take makes the state give up its descriptor; -1 if it had none.
func (st *fdState) take() int {
	raw := st.raw.Swap(-1)
	if st.trace != nil {
		openMu.Lock()
		delete(open, st)
		openMu.Unlock()
	}
	return int(raw)
}

// Int returns the descriptor's number, or -1 if it is closed. Ownership stays.
func (f *FD) Int() int {
	if f == nil {
		return -1
	}
	return int(f.raw.Load())
}

// Name returns the name given to NewFD, or "nil fd".
func (f *FD) Name() string {
	if f == nil {
		return "nil fd"
	}
	return f.name
}

// Valid reports whether f is non-nil and open.
func (f *FD) Valid() bool { return f.Int() >= 0 }

// Close closes the descriptor. A second Close, or Close on nil, does nothing.
func (f *FD) Close() error {
	if f == nil {
		return nil
	}
	raw := f.take()
	if raw < 0 {
		return nil
	}
	f.cleanup.Stop()
	if err := unix.Close(raw); err != nil {
		return &OpError{Op: "close", Object: f.name, Err: err}
	}
	return nil
}

// Dup makes a second descriptor for the same open file (close-on-exec), owned
// by the caller.
func (f *FD) Dup() (*FD, error) {
	raw := f.Int()
	if raw < 0 {
		return nil, &OpError{Op: "dup", Object: f.Name(), Err: os.ErrClosed}
	}
	dup, err := unix.FcntlInt(uintptr(raw), unix.F_DUPFD_CLOEXEC, 0)
	runtime.KeepAlive(f)
	if err != nil {
		return nil, &OpError{Op: "dup", Object: f.name, Err: err}
	}
	return NewFD(dup, f.name), nil
}

// Disown returns the descriptor's number and gives up ownership: the caller must
// close it. It returns -1 if f is nil or was closed already.
func (f *FD) Disown() int {
	if f == nil {
		return -1
	}
	raw := f.take()
	f.cleanup.Stop()
	return raw
}

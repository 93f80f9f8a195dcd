package virgltest

import (
	"slices"

	"golang.org/x/sys/unix"
)

// CreateFence implements virgl.Renderer. OnFence hears of the fence from inside a
// later Poll, once it has signalled.
func (f *Fake) CreateFence(ctx, id uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enter(OpCreateFence); err != nil {
		return err
	}
	if ctx != 0 && f.contexts[ctx] == nil {
		return f.bad(OpCreateFence, "context %d does not exist", ctx)
	}
	f.pending = append(f.pending, Fence{ctx, id})
	if !f.cfg.ManualFences {
		f.signal(len(f.pending))
	}
	return nil
}

// Pending lists the fences that have not signalled, oldest first.
func (f *Fake) Pending() []Fence {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.pending)
}

// Signal lets the n oldest pending fences signal; a negative n, all. The poll
// descriptor becomes readable, and Poll reports them.
func (f *Fake) Signal(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n < 0 || n > len(f.pending) {
		n = len(f.pending)
	}
	f.signal(n)
}

// signal moves fences on. Called with mu.
func (f *Fake) signal(n int) {
	if n == 0 || f.closed {
		return
	}
	f.signalled = append(f.signalled, f.pending[:n]...)
	f.pending = slices.Delete(f.pending, 0, n)
	one := [8]byte{1}
	_, _ = unix.Write(f.event.Int(), one[:])
}

// PollFD implements virgl.Renderer.
func (f *Fake) PollFD() int { return f.event.Int() }

// Poll implements virgl.Renderer.
func (f *Fake) Poll() {
	f.mu.Lock()
	_ = f.enter(OpPoll)
	var count [8]byte
	_, _ = unix.Read(f.event.Int(), count[:])
	done := f.signalled
	f.signalled, f.reporting = f.reporting[:0], done // two lists that take turns
	f.mu.Unlock()
	for _, x := range done {
		f.cfg.OnFence(x.Ctx, x.ID)
	}
}

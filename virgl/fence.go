package virgl

import (
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// How fences work here
//
// virgl_renderer_create_fence makes a GL sync object in whatever GL context is
// current on the thread, flushes that context and appends the fence to one list;
// it does not look at its context argument, and virgl_renderer_context_create_fence
// does not switch contexts either (vrend_renderer_create_fence, 0.10.4 to 1.3).
// The library's fence thread waits for the list's entries one after the other. So:
//
//   - a fence says nothing about work in other GL contexts: GL orders a sync
//     object only after earlier commands of its own context;
//   - every virgl context, indeed every sub-context, is a GL context, and context 0
//     (uploads, read-backs) is one more;
//   - but a fence can only signal after every fence made before it.
//
// Hence the rule that makes fences whole: before the thread leaves a GL context
// that has work without a fence, it makes a fence there. At any time at most one
// GL context has work without a fence, and it is the current one. Then a fence
// made in the current context covers everything submitted before it, by any
// context. Guests put a fence on nearly every command that draws, so the extra
// fences are rare.
//
// The rule does not rely on the driver. On llvmpipe, where rasterising is
// asynchronous and a dma-buf carries no implicit fence, it is what keeps half-drawn
// pictures from being shown.

// seqLess orders the u32 numbers of the library's fences, which wrap.
func seqLess(a, b uint32) bool { return int32(a-b) < 0 }

type pendingFence struct {
	seq     uint32 // the library's fence that it waits for
	ctx, id uint32 // the caller's
}

// fenceQueue numbers the library's fences and remembers the caller's. It is a
// ring that grows, and allocates nothing once it is large enough.
type fenceQueue struct {
	ring  []pendingFence // length is a power of two
	head  uint32
	count uint32

	made     uint32 // number of the last fence made in the library
	retired  uint32 // number of the last one known to have signalled
	ctx      uint32 // the context whose GL context is current
	unfenced bool   // ctx has work without a fence
}

func (q *fenceQueue) len() int { return int(q.count) }

func (q *fenceQueue) push(f pendingFence) {
	if int(q.count) == len(q.ring) {
		ring := make([]pendingFence, max(64, 2*len(q.ring)))
		for i := range q.count {
			ring[i] = q.ring[(q.head+i)&uint32(len(q.ring)-1)]
		}
		q.ring, q.head = ring, 0
	}
	q.ring[(q.head+q.count)&uint32(len(q.ring)-1)] = f
	q.count++
}

// pop returns the oldest fence if it has signalled.
func (q *fenceQueue) pop() (pendingFence, bool) {
	if q.count == 0 {
		return pendingFence{}, false
	}
	f := q.ring[q.head&uint32(len(q.ring)-1)]
	if seqLess(q.retired, f.seq) {
		return pendingFence{}, false
	}
	q.head++
	q.count--
	return f, true
}

// forget drops the pending fences; numbers go on.
func (q *fenceQueue) forget() { q.head, q.count = 0, 0 }

// worked notes that ctx's GL context is current and has work without a fence.
func (r *renderer) worked(ctx uint32) {
	r.fences.ctx, r.fences.unfenced = ctx, true
}

// leave is called before the library switches to the GL context of ctx, for work
// that stays in it.
func (r *renderer) leave(ctx uint32) {
	if r.fences.ctx != ctx {
		r.leaveAlways()
	}
	r.fences.ctx = ctx
}

// leaveAlways gives the work in the current GL context its fence.
func (r *renderer) leaveAlways() {
	if !r.fences.unfenced {
		return
	}
	if err := r.makeFence(); err != nil {
		// Only without memory. The work stays marked, so the next fence is made
		// anyway, in a context that may not cover it.
		r.log.Error(err.Error())
	}
}

// makeFence makes a fence of the library in the current GL context, or finishes
// the work there.
func (r *renderer) makeFence() error {
	q := &r.fences
	if r.finish != 0 {
		r.call(r.finish)
		q.made++
		q.retired, q.unfenced = q.made, false
		return nil
	}
	seq := q.made + 1
	if err := result(r.call(r.lib.createFence, uintptr(seq), uintptr(q.ctx))); err != nil {
		return ctxErr("create fence", q.ctx, err)
	}
	q.made = seq
	q.unfenced = false
	return nil
}

// replaceFence is called after a context has ended. The library then drops the fence that its
// thread waits for, whosesoever it is (vrend_free_fences_for_context, fence_waiting), and if no
// later one came, its waiters would wait for ever. A later one signals after all before it.
func (r *renderer) replaceFence() {
	if !seqLess(r.fences.retired, r.fences.made) {
		return
	}
	if err := r.makeFence(); err != nil {
		r.log.Error(err.Error())
	}
}

// CreateFence implements Renderer. The fence covers everything submitted before
// it, whichever context did it: the pixels that Submit and TransferToHost produce
// are complete in memory, and visible through an exported dma-buf, when OnFence
// hears of it. With nothing in flight OnFence is called at once.
func (r *renderer) CreateFence(ctx, id uint32) error {
	r.check()
	q := &r.fences
	if q.unfenced {
		if err := r.makeFence(); err != nil {
			return err
		}
	}
	if q.count == 0 && !seqLess(q.retired, q.made) {
		r.fence(ctx, id)
		return nil
	}
	q.push(pendingFence{seq: q.made, ctx: ctx, id: id})
	return nil
}

// PollFD implements Renderer: an eventfd of the library.
func (r *renderer) PollFD() int {
	return int(r.call(r.lib.getPollFD))
}

// Poll implements Renderer.
func (r *renderer) Poll() {
	r.check()
	r.pollLibrary()
	for {
		f, ok := r.fences.pop()
		if !ok {
			return
		}
		r.fence(f.ctx, f.id)
	}
}

func (r *renderer) pollLibrary() {
	r.call(r.lib.poll)
	if r.finish == 0 {
		r.fences.retired = r.cb.lastFence()
	}
}

// settleTimeout is how long settle waits for the GPU. A driver resets a hung GPU
// after about ten seconds.
const settleTimeout = 12 * time.Second

// settle waits until all work submitted so far is complete. It calls no OnFence:
// the poll descriptor is made readable again, so that the caller's loop polls.
func (r *renderer) settle() {
	q := &r.fences
	r.leaveAlways()
	if !seqLess(q.retired, q.made) {
		return
	}
	fd := r.PollFD()
	polled := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	deadline := time.Now().Add(settleTimeout)
	for r.pollLibrary(); seqLess(q.retired, q.made); r.pollLibrary() {
		if time.Now().After(deadline) {
			r.log.Error("rendering did not finish in time", zap.Duration("limit", settleTimeout))
			break
		}
		if fd < 0 {
			time.Sleep(200 * time.Microsecond)
			continue
		}
		_, _ = unix.Poll(polled[:], 100)
	}
	if q.count > 0 && fd >= 0 {
		_, _ = unix.Write(fd, oneEvent[:])
	}
}

// oneEvent is what an eventfd takes to become readable.
var oneEvent = [8]byte{1}

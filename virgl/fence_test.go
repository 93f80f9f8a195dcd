package virgl

import (
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

const slowSize = 256 // texels, square

// slow draws a picture that takes some 50 ms, whatever the machine.
func (g *guest) slow(id uint32, rgba [4]float32) {
	g.t.Helper()
	for g.loops == 0 {
		g.calibrate(id)
	}
	g.slowDraw(id, rgba, g.loops)
}

func (g *guest) slowDraw(id uint32, rgba [4]float32, loops float32) {
	g.t.Helper()
	g.draw(id, virglcmd.FormatB8G8R8A8, slowSize, slowSize, virglcmd.SlowFragmentShader,
		virglcmd.TriangleStrip, virglcmd.Quad(rgba, rgba), loops)
}

// calibrate finds out how often the slow shader has to go round.
func (g *guest) calibrate(id uint32) {
	g.t.Helper()
	g.slowDraw(id, testColor, 1) // compiles the shaders
	g.r.settle()
	for loops := float32(64); loops < 60000; loops *= 2 {
		start := time.Now()
		g.slowDraw(id, testColor, loops)
		g.r.settle()
		if took := time.Since(start); took > 50*time.Millisecond {
			g.loops = loops
			g.t.Logf("%v rounds of the slow shader take %v", loops, took)
			return
		}
	}
	g.loops = 60000
}

// TestFenceWaits submits slow work in one context and asks for a fence from three
// places: the same context, another context that did quick work since, and context
// 0. None may signal while the slow work goes on, which reading the picture shows.
func TestFenceWaits(t *testing.T) {
	var signalled []uint32
	onThread(t, func(_, id uint32) { signalled = append(signalled, id) }, func(r *renderer) {
		g, other := newGuest(t, r, 1), newGuest(t, r, 2)
		for _, id := range []uint32{1, 2, 3} {
			g.target(id, virglcmd.FormatB8G8R8A8, slowSize, slowSize, 0)
		}
		other.target(4, virglcmd.FormatB8G8R8A8, 64, 64, 0)
		g.slow(1, testColor)
		r.settle()

		id := uint32(0)
		for _, from := range []struct {
			name string
			ctx  uint32
			then func()
		}{
			{"same context", 1, func() {}},
			{"other context", 2, func() { other.clear(4, virglcmd.FormatB8G8R8A8, testColor) }},
			{"context 0", 0, func() {}},
			{"other sub-context", 1, func() {
				g.b.CreateSubCtx(2)
				g.b.SetSubCtx(2)
				g.submit()
				g.clear(3, virglcmd.FormatB8G8R8A8, testColor)
				g.b.SetSubCtx(1)
				g.submit()
			}},
		} {
			signalled = nil
			start := time.Now()
			g.slow(1, testColor)
			from.then()
			id++
			if err := r.CreateFence(from.ctx, id); err != nil {
				t.Fatal(err)
			}
			waitFence(t, r, func() bool { return len(signalled) > 0 })
			took := time.Since(start)
			start = time.Now()
			g.read(1, slowSize, slowSize, 4)
			rest := time.Since(start)
			t.Logf("%s: fence after %v, reading then takes %v", from.name, took, rest)
			if rest > took {
				t.Errorf("%s: fence after %v, but the work went on for %v", from.name, took, rest)
			}
			if len(signalled) != 1 || signalled[0] != id {
				t.Errorf("%s: signalled %v, want %d", from.name, signalled, id)
			}
		}
	})
}

// TestFencePerGLContext checks the rule of fence.go whatever the driver does: work
// gets a fence before the thread leaves its GL context.
func TestFencePerGLContext(t *testing.T) {
	onThread(t, nil, func(r *renderer) {
		g, other := newGuest(t, r, 1), newGuest(t, r, 2)
		g.target(1, virglcmd.FormatB8G8R8A8, 16, 16, 0)
		other.target(2, virglcmd.FormatB8G8R8A8, 16, 16, 0)
		if err := r.CreateContext(3, 0, "third"); err != nil {
			t.Fatal(err)
		}
		if err := r.AttachBacking(1, [][]byte{pattern(16, 16)}); err != nil {
			t.Fatal(err)
		}
		upload := func(ctx uint32) {
			if err := r.TransferToHost(&Transfer{Resource: 1, Ctx: ctx, Box: Box{W: 16, H: 16, D: 1}}); err != nil {
				t.Fatal(err)
			}
		}
		r.settle()
		replaced := uint32(1)
		if r.finish != 0 { // then no fence is ever on its way
			replaced = 0
		}
		for _, step := range []struct {
			name  string
			do    func()
			fence uint32 // fences made by the step
		}{
			{"first submit", func() { g.clear(1, virglcmd.FormatB8G8R8A8, testColor) }, 0},
			{"same context may have changed its sub-context", func() { g.clear(1, virglcmd.FormatB8G8R8A8, testColor) }, 1},
			{"other context", func() { other.clear(2, virglcmd.FormatB8G8R8A8, testColor) }, 1},
			{"upload in context 0", func() { upload(0) }, 1},
			{"second upload in context 0", func() { upload(0) }, 0},
			{"upload in context 1", func() { upload(1) }, 1},
			{"fence", func() { _ = r.CreateFence(1, 1) }, 1},
			{"second fence without work", func() { _ = r.CreateFence(2, 2) }, 0},
			{"a context ends with a fence on its way", func() { r.DestroyContext(2) }, replaced},
			{"context switch without work", func() { r.settle(); r.DestroyContext(3) }, 0},
			{"submit after the fence", func() { g.clear(1, virglcmd.FormatB8G8R8A8, testColor) }, 0},
			{"reading waits", func() { g.read(1, 16, 16, 4) }, 1},
		} {
			before := r.fences.made
			step.do()
			if got := r.fences.made - before; got != step.fence {
				t.Errorf("%s: %d fences, want %d", step.name, got, step.fence)
			}
		}
	})
}

// TestFenceOrder makes many fences from two contexts and expects each once, in
// order.
func TestFenceOrder(t *testing.T) {
	type pair struct{ ctx, id uint32 }
	var got, want []pair
	onThread(t, func(ctx, id uint32) { got = append(got, pair{ctx, id}) }, func(r *renderer) {
		for _, ctx := range []uint32{1, 2} {
			g := newGuest(t, r, ctx)
			g.target(ctx, virglcmd.FormatB8G8R8A8, 16, 16, 0)
			for i := range uint32(300) {
				g.clear(ctx, virglcmd.FormatB8G8R8A8, testColor)
				id := 0xffffff00 + i
				if err := r.CreateFence(ctx, id); err != nil {
					t.Fatal(err)
				}
				want = append(want, pair{ctx, id})
			}
		}
		waitFence(t, r, func() bool { return len(got) >= len(want) })
		if s := r.Stats(); s.FencesPending != 0 {
			t.Errorf("%d fences pending after the last", s.FencesPending)
		}
	})
	if len(got) != len(want) {
		t.Fatalf("%d fences, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("fence %d is %v, want %v", i, got[i], want[i])
		}
	}
}

// TestFenceIdle expects a fence without work before it at once.
func TestFenceIdle(t *testing.T) {
	count := 0
	onThread(t, func(_, _ uint32) { count++ }, func(r *renderer) {
		r.settle()
		if err := r.CreateFence(0, 1); err != nil {
			t.Fatal(err)
		}
		if count != 1 {
			t.Errorf("OnFence called %d times by CreateFence, want 1", count)
		}
	})
}

// TestFenceAfterRead checks that a read which waits does not swallow the fences that
// signal meanwhile.
func TestFenceAfterRead(t *testing.T) {
	count := 0
	onThread(t, func(_, _ uint32) { count++ }, func(r *renderer) {
		g := newGuest(t, r, 1)
		g.target(1, virglcmd.FormatB8G8R8A8, slowSize, slowSize, 0)
		g.slow(1, testColor)
		if err := r.CreateFence(1, 1); err != nil {
			t.Fatal(err)
		}
		before := count // 1 where making a fence waits for the work
		p := g.read(1, slowSize, slowSize, 4)
		checkTexels(t, p, []byte{64, 128, 255, 255}, []byte{255, 255, 255, 255}, slowSize)
		if count != before {
			t.Error("OnFence called from inside ReadPixels")
		}
		waitFence(t, r, func() bool { return count == 1 })
	})
}

// TestFenceBurst draws in two contexts and asks for a fence after each picture,
// without ever waiting: the library's fence thread is at work while this one draws.
func TestFenceBurst(t *testing.T) {
	const rounds = 300
	var last uint32
	onThread(t, func(_, id uint32) { last = id }, func(r *renderer) {
		guests := [2]*guest{newGuest(t, r, 1), newGuest(t, r, 2)}
		for i, g := range guests {
			g.target(uint32(i+1), virglcmd.FormatB8G8R8A8, slowSize, slowSize, 0)
			if r.Info().DMABufExport {
				b, err := r.Export(uint32(i + 1))
				if err != nil {
					t.Fatal(err)
				}
				defer b.Release()
			}
		}
		for i := range uint32(rounds) {
			g, id := guests[i%2], i%2+1
			g.clear(id, virglcmd.FormatB8G8R8A8, [4]float32{0, 0, 0, 1})
			g.draw(id, virglcmd.FormatB8G8R8A8, slowSize, slowSize, virglcmd.FragmentShader,
				virglcmd.TriangleStrip, virglcmd.Quad(testColor, testColor))
			if err := r.CreateFence(id, i+1); err != nil {
				t.Fatal(err)
			}
			r.Poll()
		}
		waitFence(t, r, func() bool { return last == rounds })
		for i, g := range guests {
			checkTexels(t, g.read(uint32(i+1), slowSize, slowSize, 4), []byte{64, 128, 255, 255}, []byte{255, 255, 255, 255}, slowSize)
		}
	})
}

// TestFenceCoversDMABuf reads the exported memory the moment the fence signals: every
// texel must be there. llvmpipe has no implicit fence on the dma-buf that could help.
func TestFenceCoversDMABuf(t *testing.T) {
	done := false
	onThread(t, func(_, _ uint32) { done = true }, func(r *renderer) {
		if !r.Info().DMABufExport {
			t.Skip("the GL driver exports no dma-bufs (llvmpipe before Mesa 25, or no /dev/udmabuf)")
		}
		g, other := newGuest(t, r, 1), newGuest(t, r, 2)
		g.target(1, virglcmd.FormatB8G8R8A8, slowSize, slowSize, 0)
		other.target(2, virglcmd.FormatB8G8R8A8, 64, 64, 0)
		g.slow(1, [4]float32{0, 0, 0, 1})
		b, err := r.Export(1)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Release()
		r.settle()
		mem, err := dmabuf.Map(b.Planes[0].FD, int64(b.Size(0))+int64(b.Planes[0].Offset), false)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = dmabuf.Unmap(mem) }()
		for i, ctx := range []uint32{1, 2, 0, 1, 2, 0} {
			rgba := [4]float32{float32(i+1) / 255, 0, 0, 1}
			done = false
			g.slow(1, rgba)
			if ctx == 2 {
				other.clear(2, virglcmd.FormatB8G8R8A8, testColor)
			}
			if err := r.CreateFence(ctx, uint32(i+1)); err != nil {
				t.Fatal(err)
			}
			waitFence(t, r, func() bool { return done })
			red := 2
			if b.Fourcc.Opaque() == dmabuf.XBGR8888 {
				red = 0
			}
			wrong := 0
			for y := range uint32(slowSize) {
				row := mem[b.Planes[0].Offset+y*b.Planes[0].Stride:][:slowSize*4]
				for x := range slowSize {
					if row[4*x+red] != byte(i+1) {
						wrong++
					}
				}
			}
			if wrong > 0 {
				t.Errorf("fence %d in context %d: %d of %d texels not drawn yet", i+1, ctx, wrong, slowSize*slowSize)
			}
		}
	})
}

// TestFenceQueue checks the ring and the wrapping of numbers.
func TestFenceQueue(t *testing.T) {
	q := fenceQueue{made: 0xfffffff0, retired: 0xfffffff0}
	next := uint32(0)
	popped := uint32(0)
	for round := range 100 {
		for range round%7 + 1 {
			q.made++
			q.push(pendingFence{seq: q.made, id: next})
			next++
		}
		q.retired = q.made - uint32(round%3)
		for {
			f, ok := q.pop()
			if !ok {
				break
			}
			if f.id != popped {
				t.Fatalf("popped %d, want %d", f.id, popped)
			}
			popped++
		}
		if left := int(next - popped); left != q.len() || left > round%3 {
			t.Fatalf("round %d: %d left, len %d", round, left, q.len())
		}
	}
	q.forget()
	if _, ok := q.pop(); ok || q.len() != 0 {
		t.Error("forget left fences")
	}
}

// TestFenceOutlivesOtherContext: a fence signals though another context ends while the
// library's thread waits for it, and nobody makes a fence after it.
func TestFenceOutlivesOtherContext(t *testing.T) {
	var signalled []uint32
	onThread(t, func(_, id uint32) { signalled = append(signalled, id) }, func(r *renderer) {
		g := newGuest(t, r, 1)
		g.target(1, virglcmd.FormatB8G8R8A8, slowSize, slowSize, 0)
		g.slow(1, testColor)
		r.settle()
		for id := uint32(1); id <= 3; id++ {
			newGuest(t, r, 2)
			g.slow(1, testColor)
			if err := r.CreateFence(1, id); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond) // the thread waits by now
			r.UnrefResource(2999)
			r.DestroyContext(2)
			waitFence(t, r, func() bool { return len(signalled) == int(id) })
		}
	})
}

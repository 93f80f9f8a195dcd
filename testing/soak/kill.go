package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/wayland/waylandtest"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// Kills is about compositors that died under a guest that flips.
type Kills struct {
	Compositor string  `json:"compositor"`
	Kills      int     `json:"kills"`
	CameBack   int     `json:"came_back"` // kills after which frames reached the new compositor
	SlowestMS  int64   `json:"slowest_ms"`
	Flips      int     `json:"flips"` // that the guest's device answered
	SlowestRTT int64   `json:"slowest_flip_ms"`
	Seconds    float64 `json:"seconds"`
	Before     Counts  `json:"before"`
	After      Counts  `json:"after"`
}

// comeBack is how long frames may take to reach a compositor that is back.
const comeBack = 20 * time.Second

// victim is a compositor that can be killed and started again.
type victim interface {
	name() string
	socket() string
	kill() error
	start(ctx context.Context) error
	close()
}

// fake is a compositor in this process.
type fake struct {
	path string
	c    *waylandtest.Compositor
}

func (f *fake) name() string   { return "fake" }
func (f *fake) socket() string { return f.path }
func (f *fake) kill() error    { f.c.Close(); return nil }
func (f *fake) start(context.Context) (err error) {
	f.c, err = waylandtest.Listen(f.path, waylandtest.Config{})
	return err
}
func (f *fake) close() { f.c.Close() }

// weston is a real one, killed with SIGKILL.
type weston struct{ c *lab.Compositor }

func (w *weston) name() string                    { return "weston" }
func (w *weston) socket() string                  { return w.c.Socket() }
func (w *weston) kill() error                     { w.c.Kill(); return nil }
func (w *weston) start(ctx context.Context) error { return w.c.Restart(ctx) }
func (w *weston) close()                          { w.c.Stop() }

func kills(ctx context.Context, o Options, rep *Report) error {
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var v victim
	bind := []string{dir}
	if o.Weston {
		c, err := o.Root.Weston(ctx, lab.WestonOptions{W: 320, H: 240})
		if err != nil {
			return err
		}
		v, bind = &weston{c}, []string{c.RuntimeDir}
	} else {
		v = &fake{path: filepath.Join(dir, "wayland")}
		if err := v.start(ctx); err != nil {
			return err
		}
	}
	defer func() { v.close() }()
	b, err := brokerproc.Start(ctx, o.Root, brokerproc.Options{Binary: o.Binary, Bind: bind,
		Args: []string{"--display", "wayland", "--wayland-display", v.socket(), "--virgl=off", "--size", "320x240", "--log-level", "error"}})
	if err != nil {
		return err
	}
	k := &Kills{Compositor: v.name()}
	rep.Kills = k
	err = killing(ctx, o, rep, k, v, b)
	if _, serr := b.Stop(); serr != nil {
		rep.problem("kills: the broker's end: %v", serr)
	}
	return err
}

func killing(ctx context.Context, o Options, rep *Report, k *Kills, v victim, b *brokerproc.Broker) error {
	begun := time.Now()
	f, err := newFlipper(b.Socket)
	if err != nil {
		return err
	}
	defer f.close(k)
	s := &soaker{o: o, rep: rep, broker: b}
	rnd := rand.New(rand.NewPCG(o.Seed, 1))
	warm := min(max(o.Kills/10, 2), o.Kills-1)
	if err := framesCome(b); err != nil {
		return err
	}
	for i := range o.Kills {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond)
		if err := v.kill(); err != nil {
			return err
		}
		k.Kills++
		time.Sleep(time.Duration(rnd.IntN(40)) * time.Millisecond)
		if err := v.start(ctx); err != nil {
			return err
		}
		back := time.Now()
		if err := framesCome(b); err != nil {
			rep.problem("kill %d: %v", i, err)
			return nil
		}
		k.CameBack++
		k.SlowestMS = max(k.SlowestMS, time.Since(back).Milliseconds())
		if err := f.failed(); err != nil {
			rep.problem("kill %d: the guest's flips: %v", i, err)
			return nil
		}
		if i == warm {
			if k.Before, err = s.counts(); err != nil {
				return err
			}
		}
	}
	if k.After, err = s.counts(); err != nil {
		return err
	}
	k.Seconds = time.Since(begun).Seconds()
	fmt.Fprintf(o.Log, "%d kills of %s, %d times frames came back, slowest %d ms (%.0f s)\n", k.Kills, k.Compositor, k.CameBack, k.SlowestMS, k.Seconds)
	// A frame in flight holds a descriptor or two.
	if d := k.After.FDs - k.Before.FDs; d > 4 {
		rep.problem("kills: %d descriptors more after %d kills", d, k.Kills-warm)
	}
	if d := k.After.RSS - k.Before.RSS; d > rssSlack {
		rep.problem("kills: %d KiB more resident memory after %d kills", d, k.Kills-warm)
	}
	return nil
}

// framesCome waits until frames reach the compositor again. A broker that has none
// counts no frames.
func framesCome(b *brokerproc.Broker) error {
	var from uint64
	for end := time.Now().Add(comeBack); ; time.Sleep(5 * time.Millisecond) {
		st, err := b.Status()
		if err != nil {
			return err
		}
		n := st.Frames.Shm + st.Frames.DMABuf
		if from == 0 {
			from = n + 1
		}
		if n >= from+1 { // the first may have been on its way to the dead one
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("no frames %v after the compositor came back", comeBack)
		}
	}
}

// flipper is a guest that shows one buffer after the other.
type flipper struct {
	g    *fakeguest.Guest
	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	flips   int           // guarded by mu
	slowest time.Duration // guarded by mu
	err     error         // guarded by mu
}

// flipTime is how long a flip may take while there is no compositor.
const flipTime = 10 * time.Second

func newFlipper(socket string) (*flipper, error) {
	g, err := fakeguest.Dial(socket, fakeguest.Config{Profile: vhostusertest.QEMU11B, RAMSize: 16 << 20})
	if err != nil {
		return nil, err
	}
	f := &flipper{g: g, stop: make(chan struct{})}
	if err := errors.Join(g.Boot(), f.setUp()); err != nil {
		g.Quit()
		return nil, err
	}
	f.done.Go(f.run)
	return f, nil
}

var screen = virtiogpu.Rect{Width: 320, Height: 240}

func (f *flipper) setUp() error {
	for id := uint32(1); id <= 2; id++ {
		b, err := f.g.Pages.Contiguous(320 * 240 * 4)
		if err != nil {
			return err
		}
		attach := (&virtiogpu.ResourceAttachBacking{ResourceID: id, NrEntries: 1}).Append(nil)
		if err := f.ok((&virtiogpu.ResourceCreate2D{ResourceID: id, Format: virtiogpu.FormatB8G8R8X8, Width: 320, Height: 240}).Append(nil),
			virtiogpu.MemEntry{Addr: b.Entries[0].Addr, Length: uint32(b.Size)}.Append(attach)); err != nil {
			return err
		}
	}
	return nil
}

func (f *flipper) ok(cmds ...[]byte) error {
	resp := make([]byte, 64)
	for _, cmd := range cmds {
		begun := time.Now()
		n, err := f.g.Do(cmd, resp)
		if err != nil {
			return err
		}
		took := time.Since(begun)
		f.mu.Lock()
		f.slowest = max(f.slowest, took)
		f.mu.Unlock()
		var h virtiogpu.CtrlHdr
		if err := h.Decode(resp[:n]); err != nil {
			return err
		}
		if !h.Type.IsOK() || took > flipTime {
			return fmt.Errorf("answered with %v after %v", h.Type, took)
		}
	}
	return nil
}

func (f *flipper) run() {
	for i := uint32(0); ; i++ {
		select {
		case <-f.stop:
			return
		case <-time.After(4 * time.Millisecond):
		}
		id := 1 + i%2
		err := f.ok((&virtiogpu.TransferToHost2D{ResourceID: id, R: screen}).Append(nil),
			(&virtiogpu.SetScanout{ResourceID: id, R: screen}).Append(nil),
			(&virtiogpu.ResourceFlush{CtrlHdr: virtiogpu.CtrlHdr{Flags: virtiogpu.FlagFence, FenceID: uint64(i)}, ResourceID: id, R: screen}).Append(nil))
		f.mu.Lock()
		f.flips++
		f.err = err
		f.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (f *flipper) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *flipper) close(k *Kills) {
	close(f.stop)
	f.done.Wait()
	k.Flips, k.SlowestRTT = f.flips, f.slowest.Milliseconds()
	f.g.Quit()
}

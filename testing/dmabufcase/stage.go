package dmabufcase

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/westoncap"
)

// Config describes a stage.
type Config struct {
	Name     string // of the stage, and the start of its files' names
	Host     string // "vm" or "plain", for the report
	Renderer string // weston's: "gl" or "pixman"
	W, H     int    // weston's output, pixels
	Node     string // --render-node; empty is the broker's own choice
	Tier     string // how 3D frames have to go: "dmabuf" or "copy"
	Tier2D   string // how frames of 2D resources have to go: "shm" or "dmabuf"
	Warm     []Case // run first, so that caches and pools are there before anything is counted
	Cases    []Case

	Binary string    // gpubroker
	Dir    string    // for screenshots and the broker's log
	Log    io.Writer // progress, one line a case; may be nil
}

// Case is one thing that the guest does.
type Case struct {
	Name string
	// Flat says that the case shows classic 2D resources.
	Flat bool
	// Keep writes the last screenshot to a file even if it is right.
	Keep bool
	Run  func(*run) error
}

// stage is a running stage.
type stage struct {
	Config
	ctx    context.Context
	root   *lab.Root
	weston *lab.Compositor
	wpid   int
	broker *brokerproc.Broker
	guest  *driver
	camera *westoncap.Camera
	shot   westoncap.Picture
	shown  *target // what head 0 shows; kept until the next case shows its own
	result StageResult
}

// Run runs a stage to its end. Errors are about the set-up; what the cases find
// is in the result.
func Run(ctx context.Context, root *lab.Root, cfg Config) (StageResult, error) {
	s := &stage{Config: cfg, ctx: ctx, root: root}
	if s.Log == nil {
		s.Log = io.Discard
	}
	s.result = StageResult{Name: cfg.Name, Host: cfg.Host, Renderer: cfg.Renderer}
	start := time.Now()
	err := s.run()
	s.result.Seconds = time.Since(start).Seconds()
	if err != nil {
		err = fmt.Errorf("stage %s: %w", cfg.Name, err)
	}
	return s.result, err
}

func (s *stage) run() (err error) {
	if err := s.start(); err != nil {
		return err
	}
	defer func() {
		if s.guest != nil {
			s.guest.quit()
		}
		s.camera.Close()
		summary, stopErr := s.broker.Stop()
		s.result.Summary = summary
		s.weston.Stop()
		err = errors.Join(err, stopErr)
	}()
	if s.result.IdleBefore, err = s.steady(func(*Held) bool { return true }); err != nil {
		return err
	}
	if s.guest, err = newDriver(s.broker.Socket); err != nil {
		return err
	}
	if err := s.warmUp(); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	for _, c := range s.Cases {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if err := s.runCase(c); err != nil {
			return fmt.Errorf("case %s: %w\n%s", c.Name, err, s.broker.Log())
		}
	}
	return s.finish()
}

func (s *stage) start() (err error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	s.weston, err = s.root.Weston(s.ctx, lab.WestonOptions{Renderer: s.Renderer, W: s.W, H: s.H, Env: []string{oneScene}})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.weston.Stop()
		}
	}()
	if s.wpid, err = processWith("weston", s.weston.RuntimeDir); err != nil {
		return err
	}
	if s.camera, err = westoncap.Open(s.weston.Socket()); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.Dir, s.Name+"-gpubroker.log"))
	if err != nil {
		return err
	}
	args := []string{"--display", "wayland", "--wayland-display", s.weston.Socket(), "--virgl=on",
		"--size", fmt.Sprintf("%dx%d", s.W, s.H), "--title", "gpubroker " + s.Name}
	if s.Node != "" {
		args = append(args, "--render-node", s.Node)
	}
	s.broker, err = brokerproc.Start(s.ctx, s.root, brokerproc.Options{
		Binary: s.Binary, Args: args, Env: append(s.weston.Env(), touchMemory), Bind: []string{s.weston.RuntimeDir}, Log: log,
	})
	if err != nil {
		s.camera.Close()
		return err
	}
	st, err := s.broker.Status()
	if err != nil {
		return err
	}
	s.result.Node, s.result.Export = st.Renderer.Node, st.Renderer.DMABufExport
	return nil
}

func (s *stage) warmUp() error {
	if err := s.playWarm(); err != nil {
		return err
	}
	held, err := s.quiet(nil)
	s.result.Start = held
	return err
}

// playWarm runs one case of each kind without judging it.
func (s *stage) playWarm() error {
	for _, c := range s.Warm {
		st, err := s.broker.Status()
		if err != nil {
			return err
		}
		r := s.newRun(&Result{}, &st)
		r.warming = true
		if err := c.Run(r); err != nil {
			return fmt.Errorf("case %s: %w\n%s", c.Name, err, s.broker.Log())
		}
		if err := r.retire(); err != nil {
			return err
		}
	}
	return nil
}

// quiet turns the head off and waits until nobody holds a frame any more, and as
// much as want if that is not nil.
func (s *stage) quiet(want *Held) (Held, error) {
	if err := s.rinse(); err != nil {
		return Held{}, err
	}
	return s.steady(func(h *Held) bool { return h.ImportsLive == 0 && (want == nil || h.sameCounts(*want)) })
}

// rinse shows one small picture and turns the head off. A GL context, weston's or
// the broker's, keeps the textures that it was last bound to alive after they were
// deleted; thanks to rinse those are the same ones whenever somebody counts.
func (s *stage) rinse() error {
	t, err := s.guest.target3D(&formats3D[0], 16, 16, false)
	if err != nil {
		return err
	}
	t.clear(rgba{1, 2, 3, 255})
	if err := s.guest.submit(); err != nil {
		return err
	}
	if err := s.guest.setScanout(t.id, t.bounds); err != nil {
		return err
	}
	if err := s.guest.flush(t.id, t.bounds); err != nil {
		return err
	}
	old := s.shown
	s.shown = t
	if old != nil {
		if err := old.unref(); err != nil {
			return err
		}
	}
	if err := s.camera.ShootInto(&s.shot); err != nil {
		return err
	}
	if err := s.hide(); err != nil {
		return err
	}
	return s.guest.touch()
}

// steady looks at what is held until good says so of two looks in a row, for a
// while: a look itself opens a connection, which takes a moment to go.
func (s *stage) steady(good func(*Held) bool) (Held, error) {
	end := time.Now().Add(quietTime)
	var last Held
	for {
		held, err := s.held()
		if err != nil {
			return held, err
		}
		if time.Now().After(end) || good(&held) && held.sameCounts(last) {
			return held, nil
		}
		last = held
		time.Sleep(50 * time.Millisecond)
	}
}

// quietTime is how long the last imports may take to go: the broker keeps the
// window of a disabled head for two seconds.
const quietTime = 20 * time.Second

// hide turns the head off and drops what it showed.
func (s *stage) hide() error {
	if err := s.guest.setScanout(0, image.Rectangle{}); err != nil {
		return err
	}
	if s.shown == nil {
		return nil
	}
	t := s.shown
	s.shown = nil
	return t.unref()
}

// held looks at what the processes have.
func (s *stage) held() (h Held, err error) {
	st, err := s.broker.Status()
	if err != nil {
		return h, err
	}
	h.ImportsLive = st.ImportsLive
	if h.BrokerFDs, err = s.broker.OpenFDs(); err != nil {
		return h, err
	}
	if h.BrokerRSSKB, err = rssKB(s.broker.PID()); err != nil {
		return h, err
	}
	if h.WestonFDs, err = openFDs(s.wpid); err != nil {
		return h, err
	}
	if h.WestonRSSKB, err = rssKB(s.wpid); err != nil {
		return h, err
	}
	h.DMABufs, err = liveDMABufs()
	return h, err
}

// runCase runs one case and judges it. An error means that no further case can run.
func (s *stage) runCase(c Case) error {
	before, err := s.broker.Status()
	if err != nil {
		return err
	}
	res := Result{Name: c.Name, Host: s.Host, Stage: s.Name, Kind: "3d", Want: s.Tier}
	if c.Flat {
		res.Kind, res.Want = "2d", s.Tier2D
	}
	start := time.Now()
	r := s.newRun(&res, &before)
	if err := c.Run(r); err != nil {
		return err
	}
	after, err := s.broker.Status()
	if err != nil {
		return err
	}
	res.Seconds = time.Since(start).Seconds()
	s.count(&res, &before, &after)
	s.judge(r)
	if c.Keep || res.WrongPixels > 0 {
		if err := s.savePNG(c.Name+".png", s.shot.Image()); err != nil {
			return err
		}
	}
	if err := r.retire(); err != nil {
		return err
	}
	s.result.Cases = append(s.result.Cases, res)
	verdict := "ok"
	if len(res.Problems) > 0 {
		verdict = fmt.Sprint("WRONG: ", res.Problems)
	}
	fmt.Fprintf(s.Log, "%s %-34s %-8s %4d frames %4d pictures %6.2f s  %s\n", s.Name, c.Name, res.Tier,
		res.DMABuf+res.Shm, res.Pictures, res.Seconds, verdict)
	return nil
}

func (s *stage) count(res *Result, before, after *broker.Status) {
	res.DMABuf = after.Frames.DMABuf - before.Frames.DMABuf
	res.Shm = after.Frames.Shm - before.Frames.Shm
	res.Skipped = after.Frames.Skipped - before.Frames.Skipped
	res.BytesCopied = after.BytesCopied - before.BytesCopied
	if res.PointerBytes <= res.BytesCopied {
		res.BytesCopied -= res.PointerBytes
	} else {
		res.problem("%d bytes copied, fewer than the %d of pointers", res.BytesCopied, res.PointerBytes)
	}
	res.Exports = after.Exports - before.Exports
	if n := after.Errors + after.RingErrors - before.Errors - before.RingErrors; n > 0 {
		res.problem("%d commands were refused", n)
	}
	if len(after.Scanouts) != 1 {
		res.problem("%d heads show something, want 1", len(after.Scanouts))
		return
	}
	res.Tier = after.Scanouts[0].Tier
	for _, r := range after.Resources {
		if r.ID == after.Scanouts[0].Resource {
			res.Shown = r.Buffer
		}
	}
}

// judge compares the counters with what the tier promises.
func (s *stage) judge(r *run) {
	res := r.res
	if res.Tier != res.Want {
		res.problem("tier %q, want %q", res.Tier, res.Want)
	}
	wantDMABuf, wantShm := r.frames, uint64(0)
	if res.Want != "dmabuf" {
		wantDMABuf, wantShm = 0, r.frames
	}
	if !r.unpaced && (res.DMABuf != wantDMABuf || res.Shm != wantShm || res.Skipped != 0) {
		res.problem("frames: %d dma-buf, %d shm, %d skipped; want %d, %d, 0", res.DMABuf, res.Shm, res.Skipped, wantDMABuf, wantShm)
	}
	if r.unpaced && (wantDMABuf == 0) != (res.DMABuf == 0) || r.unpaced && (wantShm == 0) != (res.Shm == 0) {
		res.problem("frames: %d dma-buf, %d shm of at most %d", res.DMABuf, res.Shm, r.frames)
	}
	switch {
	case res.ZeroCopy() && res.BytesCopied != 0:
		res.problem("%d bytes copied on the way of dma-bufs, want 0", res.BytesCopied)
	case !res.ZeroCopy() && res.BytesCopied == 0:
		res.problem("no bytes counted as copied, and there is no other way")
	}
	least, most := res.Resources, res.Resources
	switch {
	case !res.ZeroCopy():
		least, most = 0, 0
	case r.unpaced: // which ones were on screen for a moment depends on time
		least = 1
	}
	if res.Exports < least || res.Exports > most {
		res.problem("%d exports of %d shown resources, want %d to %d", res.Exports, res.Resources, least, most)
	}
	if res.Pictures == 0 {
		res.problem("no picture was compared")
	}
}

// finish looks for what was left behind.
func (s *stage) finish() error {
	end, err := s.quiet(&s.result.Start)
	if err != nil {
		return err
	}
	s.result.End = end
	if !end.sameCounts(s.result.Start) {
		s.result.problem("held at the end %+v, at the start %+v", end, s.result.Start)
	}
	if err := s.churn(); err != nil {
		return err
	}
	st, err := s.broker.Status()
	if err != nil {
		return err
	}
	s.result.Imports, s.result.Exports, s.result.Errors = st.Imports, st.Exports, st.Errors
	if st.Errors+st.RingErrors > 0 {
		s.result.problem("the broker refused %d commands and saw %d ring errors", st.Errors, st.RingErrors)
	}
	s.guest.quit()
	s.guest = nil
	return s.afterGuest()
}

// touchMemory makes malloc fill what it gives out (mallopt(3), M_PERTURB). Without it the
// broker grows by 1 to 28 MiB each time that cases are played again, for dozens of rounds,
// though it holds no byte more: in every round 4336 blocks of 16 KiB and more were live
// with 146546 KiB. They are the compiler's of Mesa, which takes 32 KiB for each size of
// object in each shader that it keeps (ralloc.c, gc_alloc_size) and writes to little of
// them; half of malloc's 170 MiB is not in RAM at first. As shaders come and go with the
// guest's contexts, the blocks change places, and what was touched once stays. Filled at
// once, what is in RAM is what is allocated, and malloc's part grew by 0 KiB in each round.
// Weston, which has one context, does not grow without; 14.0.2 crashes with it, when a
// picture is taken of what GL drew.
const touchMemory = "GLIBC_TUNABLES=glibc.malloc.perturb=85"

// oneScene makes weston's llvmpipe draw in the thread that asks for it. With threads it has
// as many scenes, of up to 64, as were once on their way together, takes the first that is
// free, and each keeps the textures of its last picture (lp_setup.c): on a busy machine
// weston was seen to keep 7, on an idle one 3; without threads it keeps none.
const oneScene = "LP_NUM_THREADS=0"

// churnRounds is how often churn plays the cases of the warm-up.
const churnRounds = 2

// maxGrowthKB is how much larger a process may be after that, in KiB. The Go runtime's
// heap was seen to take another 2.6 MiB; a picture lost per frame would be 50 or more.
const maxGrowthKB = 16 << 10

// churn plays cases again, after every one has run, and looks at the memory. By then
// llvmpipe has compiled its shaders for each format and allocators have their arenas;
// what still grows is lost.
func (s *stage) churn() error {
	before := s.result.End
	for range churnRounds {
		if err := s.playWarm(); err != nil {
			return err
		}
		after, err := s.quiet(nil)
		if err != nil {
			return err
		}
		s.result.ChurnKB = append(s.result.ChurnKB, Growth{after.BrokerRSSKB - before.BrokerRSSKB, after.WestonRSSKB - before.WestonRSSKB})
		before = after
	}
	var sum Growth
	for _, g := range s.result.ChurnKB {
		sum.Broker += g.Broker
		sum.Weston += g.Weston
	}
	if max(sum.Broker, sum.Weston) > maxGrowthKB {
		s.result.problem("memory grew in %d rounds of the same cases, by %d KiB of the broker's and %d KiB of weston's, limit %d: %+v",
			churnRounds, sum.Broker, sum.Weston, maxGrowthKB, s.result.ChurnKB)
	}
	return nil
}

// afterGuest waits until the broker holds no more than before the guest came.
func (s *stage) afterGuest() (err error) {
	s.result.IdleAfter, err = s.steady(func(h *Held) bool { return h.noMoreThan(s.result.IdleBefore) })
	if err == nil && !s.result.IdleAfter.noMoreThan(s.result.IdleBefore) {
		s.result.problem("held after the guest %+v, before it %+v", s.result.IdleAfter, s.result.IdleBefore)
	}
	return err
}

func (s *stage) savePNG(name string, img image.Image) error {
	f, err := os.Create(filepath.Join(s.Dir, s.Name+"-"+name))
	if err != nil {
		return err
	}
	enc := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := enc.Encode(f, img); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

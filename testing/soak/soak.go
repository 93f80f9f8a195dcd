package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/testing/hostile"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// Options say how much of what.
type Options struct {
	Binary string    // gpubroker
	Root   *lab.Root // where it runs
	GL     bool      // with virgl; else the renderer's parts are left out
	Log    io.Writer // progress; may be nil

	Resources, Fences, Contexts int // made and dropped
	Kills                       int // of the compositor
	// Weston, if set, is killed; else a fake compositor in this process.
	Weston bool
	Seed   uint64 // of the kills' times
	// GuestKills is how often the worker, and then the compositor, dies under a real
	// guest; 0 leaves the guest out. It needs the lab's root.
	GuestKills int
}

// Counts is what the broker holds at one moment, no VM being connected except
// where Run says so.
type Counts struct {
	FDs               int `json:"fds"`
	RSS               int `json:"rss_kib"`
	Resources         int `json:"resources"`
	Contexts          int `json:"contexts"`
	RendererResources int `json:"renderer_resources"`
	RendererContexts  int `json:"renderer_contexts"`
	RendererFences    int `json:"renderer_fences"`
}

// Run is one kind of thing, made and dropped. Before is after the first tenth of
// them: what caches keep is there then.
type Run struct {
	Name    string  `json:"name"`
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"`
	Before  Counts  `json:"before"`
	After   Counts  `json:"after"`
}

// Report is out/soak/report.json.
type Report struct {
	Runs     []*Run        `json:"runs"`
	Kills    *Kills        `json:"kills,omitempty"`
	Guest    []*GuestKills `json:"guest_kills,omitempty"`
	Renderer string        `json:"renderer"`
	Problems []string      `json:"problems"`
	Seconds  float64       `json:"seconds"`
}

func (r *Report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// Verdict is an error if something grew or did not come back.
func (r *Report) Verdict() error {
	var errs []error
	for _, p := range r.Problems {
		errs = append(errs, errors.New(p))
	}
	return errors.Join(errs...)
}

// rssSlack is how much the resident memory may differ, in KiB: what allocators and
// the garbage collector keep, not what so many leaks would take.
const rssSlack = 48 << 10

// soaker is a broker and the guest that works on it.
type soaker struct {
	o      Options
	rep    *Report
	broker *brokerproc.Broker
	g      *fakeguest.Guest
	resp   []byte
	ops    []*fakeguest.Op
}

// Do runs it all. The error is about the run itself; see Verdict.
func Do(ctx context.Context, o Options) (*Report, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	rep := &Report{Problems: []string{}}
	begun := time.Now()
	defer func() { rep.Seconds = time.Since(begun).Seconds() }()
	if err := counted(ctx, o, rep); err != nil {
		return rep, err
	}
	if o.Kills > 0 {
		if err := kills(ctx, o, rep); err != nil {
			return rep, err
		}
	}
	if o.GuestKills > 0 {
		if err := guestKills(ctx, o, rep); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

func counted(ctx context.Context, o Options, rep *Report) error {
	virgl := "off"
	if o.GL {
		virgl = "on"
	}
	b, err := brokerproc.Start(ctx, o.Root, brokerproc.Options{Binary: o.Binary,
		Args: []string{"--display", "headless", "--virgl=" + virgl, "--log-level", "warn"}})
	if err != nil {
		return err
	}
	s := &soaker{o: o, rep: rep, broker: b, resp: make([]byte, 1024)}
	err = s.all(ctx)
	if s.g != nil {
		s.g.Quit()
	}
	if _, serr := b.Stop(); serr != nil {
		rep.problem("the broker's end: %v", serr)
	}
	return err
}

func (s *soaker) all(ctx context.Context) error {
	var err error
	if s.g, err = fakeguest.Dial(s.broker.Socket, fakeguest.Config{Profile: vhostusertest.QEMU11B}); err != nil {
		return err
	}
	if err := s.g.Boot(); err != nil {
		return err
	}
	st, err := s.broker.Status()
	if err != nil {
		return err
	}
	s.rep.Renderer = st.Renderer.Library
	parts := []struct {
		name  string
		count int
		gl    bool
		do    func(n int) error
	}{
		{"2D resources", s.o.Resources / 3, false, s.resources2D},
		{"host blobs", s.o.Resources / 3, false, s.blobs},
		{"3D resources", s.o.Resources / 3, true, s.resources3D},
		{"fences", s.o.Fences, true, s.fences},
		{"contexts", s.o.Contexts, true, s.contexts},
	}
	for _, p := range parts {
		if p.gl && !s.o.GL || p.count == 0 {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.run(p.name, p.count, p.do); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// run makes and drops count things and compares.
func (s *soaker) run(name string, count int, do func(n int) error) error {
	begun := time.Now()
	warm := max(count/10, 1)
	if err := do(warm); err != nil {
		return err
	}
	r := &Run{Name: name, Count: count}
	s.rep.Runs = append(s.rep.Runs, r)
	var err error
	if r.Before, err = s.counts(); err != nil {
		return err
	}
	if err := do(count - warm); err != nil {
		return err
	}
	if r.After, err = s.counts(); err != nil {
		return err
	}
	r.Seconds = time.Since(begun).Seconds()
	fmt.Fprintf(s.o.Log, "%d %s in %.1f s: %+v, then %+v\n", count, name, r.Seconds, r.Before, r.After)
	if d := r.After.RSS - r.Before.RSS; d > rssSlack {
		s.rep.problem("%s: %d KiB more resident memory after %d of them", name, d, count-warm)
	}
	a, b := r.After, r.Before
	a.RSS, b.RSS = 0, 0
	if a != b {
		s.rep.problem("%s: held %+v before and %+v after", name, b, a)
	}
	return nil
}

func (s *soaker) counts() (c Counts, err error) {
	st, err := s.broker.Status()
	for i := 0; err == nil && st.Renderer.FencesPending > 0 && i < 200; i++ { // the last one signals on its own
		time.Sleep(10 * time.Millisecond)
		st, err = s.broker.Status()
	}
	if err != nil {
		return c, err
	}
	c.Resources, c.Contexts = len(st.Resources), len(st.Contexts)
	c.RendererResources, c.RendererContexts, c.RendererFences = st.Renderer.Resources, st.Renderer.Contexts, st.Renderer.FencesPending
	if c.FDs, err = s.settledFDs(); err != nil {
		return c, err
	}
	c.RSS, err = hostile.RSS(s.broker.PID())
	return c, err
}

// settledFDs counts descriptors when three looks agree: status connections come
// and go.
func (s *soaker) settledFDs() (n int, err error) {
	last, same := -1, 0
	for range 200 {
		if n, err = s.broker.OpenFDs(); err != nil {
			return 0, err
		}
		if n == last {
			if same++; same == 3 {
				break
			}
		} else {
			last, same = n, 0
		}
		time.Sleep(5 * time.Millisecond)
	}
	return n, nil
}

// batch is how many commands are in flight at a time.
const batch = 120

// send puts a command into the ring; full rings are drained first.
func (s *soaker) send(cmd []byte) error {
	if len(s.ops) == batch {
		if err := s.drain(); err != nil {
			return err
		}
	}
	op, err := s.g.Ctrl.Submit(cmd, 64)
	if err != nil {
		return err
	}
	s.ops = append(s.ops, op)
	return nil
}

// drain waits for what is in flight; each must have succeeded.
func (s *soaker) drain() error {
	for _, op := range s.ops {
		n, err := s.g.Ctrl.Wait(op, s.resp, time.Minute)
		if err != nil {
			return err
		}
		var h virtiogpu.CtrlHdr
		if err := h.Decode(s.resp[:n]); err != nil {
			return err
		}
		if !h.Type.IsOK() {
			return fmt.Errorf("answered with %v", h.Type)
		}
	}
	s.ops = s.ops[:0]
	return nil
}

package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// Options say what to run.
type Options struct {
	Binary string    // gpubroker
	Root   *lab.Root // where it runs: the lab, or HostRoot
	GL     bool      // with virgl, too
	Match  string    // only cases whose full name contains it
	Every  int       // only one case in so many of the large groups; 1 if 0
	Log    io.Writer // progress; may be nil
	// Verbose names every case before it runs.
	Verbose bool

	Mutate time.Duration // how long to mutate recorded traffic; 0: not
	Seed   uint64        // of the mutations
	// Recording, if set, is the file of gpubroker serve --record that is mutated, and
	// nothing else.
	Recording string
	Dir       string // where to keep what ended the broker
}

// CaseReport is a case that did not end as it must, or is known not to.
type CaseReport struct {
	Target string `json:"target"`
	Case   string `json:"case"`
	What   string `json:"what"`
	Known  string `json:"known,omitempty"`
	Place  string `json:"place,omitempty"` // the library and offset that a crash was in
	Log    string `json:"log,omitempty"`   // the broker's last lines
}

// Report is out/hostile/report.json.
type Report struct {
	Cases       int             `json:"cases"` // run, on all brokers
	Answered    int             `json:"answered"`
	VMDropped   int             `json:"vm_dropped"`
	BrokerExits int             `json:"broker_exits"`
	LeakedFDs   int             `json:"leaked_fds"`
	Hangs       int             `json:"hangs"`
	Different   int             `json:"different_cases"`
	Failures    []CaseReport    `json:"failures"`
	Known       []CaseReport    `json:"known"` // cases that did what their reason says
	Targets     []*TargetReport `json:"targets"`
	Mutations   *MutationReport `json:"mutations,omitempty"`
	Seconds     float64         `json:"seconds"`
}

// TargetReport is about one broker.
type TargetReport struct {
	Name     string `json:"name"`
	FDs      int    `json:"fds"` // with no VM, before and after
	RSSStart int    `json:"rss_start_kib"`
	RSSEnd   int    `json:"rss_end_kib"`
	RSSPeak  int    `json:"rss_peak_kib"`
	PeakCase string `json:"rss_peak_case"`
	// Growth lists the cases that made it grow, whether it shrank again or not.
	Growth []Growth `json:"growth"`
}

// Verdict is an error if something is not as it must be.
func (r *Report) Verdict() error {
	var errs []error
	for _, f := range r.Failures {
		errs = append(errs, fmt.Errorf("%s: %s: %s", f.Target, f.Case, f.What))
	}
	if r.BrokerExits+r.LeakedFDs+r.Hangs > 0 {
		errs = append(errs, fmt.Errorf("%d broker exits, %d leaked descriptors, %d hangs", r.BrokerExits, r.LeakedFDs, r.Hangs))
	}
	for _, t := range r.Targets {
		for _, g := range t.Growth {
			if g.Again > noteworthy && g.Known == "" {
				errs = append(errs, fmt.Errorf("%s: %s: leaks %d KiB each time", t.Name, g.Case, g.Again))
			}
		}
	}
	return errors.Join(errs...)
}

// runner runs cases on one broker.
type runner struct {
	o      Options
	rep    *Report
	target *Target
	tr     *TargetReport
	rss    int         // KiB, after the case before
	late   atomic.Bool // the case took too long and lost its broker
}

// caseTime is how long a case may take before its broker counts as stuck.
const caseTime = 90 * time.Second

// Run runs every case on a broker without 3D and, with o.GL, on one with. The
// error is about the run itself; see Verdict for what it found.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	rep := &Report{Failures: []CaseReport{}, Known: []CaseReport{}}
	begun := time.Now()
	defer func() { rep.Seconds = time.Since(begun).Seconds() }()
	all := Cases()
	rep.Different = len(all)
	for _, gl := range []bool{false, true} {
		if gl && !o.GL {
			continue
		}
		if err := runTarget(ctx, o, rep, all, gl); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

func runTarget(ctx context.Context, o Options, rep *Report, all []Case, gl bool) error {
	t, err := NewTarget(ctx, o.Root, o.Binary, gl)
	if err != nil {
		return err
	}
	r := &runner{o: o, rep: rep, target: t, tr: &TargetReport{Name: t.Name, FDs: t.fds, RSSStart: t.rss, Growth: []Growth{}}, rss: t.rss}
	rep.Targets = append(rep.Targets, r.tr)
	seen := map[string]int{}
	for i := range all {
		c := &all[i]
		name := c.Group + ": " + c.Name
		if !c.on(gl) || !strings.Contains(name, o.Match) {
			continue
		}
		seen[c.Group]++
		if o.Every > 1 && seen[c.Group]%o.Every != 1 {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		if err := r.run(ctx, c, name); err != nil {
			return err
		}
	}
	if r.tr.RSSEnd, err = t.RSS(); err != nil {
		return err
	}
	if gl && o.Mutate > 0 && ctx.Err() == nil {
		if err := r.mutate(ctx); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		rep.Failures = append(rep.Failures, CaseReport{Target: t.Name, Case: "the end", What: err.Error()})
	}
	return ctx.Err()
}

// run runs one case and writes down how it ended. An error means that there is no
// broker to go on with.
func (r *runner) run(ctx context.Context, c *Case, name string) error {
	r.rep.Cases++
	if r.o.Verbose {
		fmt.Fprintf(r.o.Log, "%s: %s\n", r.target.Name, name)
	}
	begun := time.Now()
	r.late.Store(false)
	watch := time.AfterFunc(caseTime, func() { r.late.Store(true); r.target.Kill() })
	end, err := r.attempt(c)
	took := time.Since(begun)
	watch.Stop()
	if took > 2*time.Second || err != nil {
		fmt.Fprintf(r.o.Log, "%s: %s: %.1f s %v\n", r.target.Name, name, took.Seconds(), orOK(err))
	}
	switch {
	case err == nil && end == Dropped:
		r.rep.VMDropped++
	case err == nil:
		r.rep.Answered++
	}
	if err == nil {
		if err = r.memory(c, name); err == nil {
			return nil
		}
	}
	return r.failed(ctx, c, name, err)
}

func orOK(err error) any {
	if err == nil {
		return ""
	}
	return err
}

// Growth is a case after which the broker was much larger than before it. It is
// then run again, until it grows no more: what allocators keep they use again, though
// it takes a few runs until they have enough; what leaks comes on top each time.
type Growth struct {
	Case  string `json:"case"`
	KiB   int    `json:"kib"`
	Again int    `json:"again_kib"` // the growth of the last run
	Runs  int    `json:"runs"`
	Known string `json:"known,omitempty"`
}

// noteworthy growth, in KiB, and how many runs it may take to end.
const (
	noteworthy = 64 << 10
	mostRuns   = 12
)

// memory notes the broker's size after a case, and runs the case again if that has
// grown much.
func (r *runner) memory(c *Case, name string) error {
	d, err := r.growth(name)
	if err != nil || d <= noteworthy {
		return err
	}
	g := Growth{Case: name, KiB: d, Again: d, Runs: 1, Known: c.Leaks}
	for g.Again > noteworthy && g.Runs < mostRuns && (c.Leaks == "" || g.Runs < 3) {
		if _, err := r.attempt(c); err != nil {
			return fmt.Errorf("run %d: %w", g.Runs+1, err)
		}
		if g.Again, err = r.growth(name); err != nil {
			return err
		}
		g.Runs++
	}
	r.tr.Growth = append(r.tr.Growth, g)
	return nil
}

// growth is how much the broker has grown since the last call, in KiB.
func (r *runner) growth(name string) (int, error) {
	rss, err := r.target.RSS()
	if err != nil {
		return 0, err
	}
	d := rss - r.rss
	r.rss = rss
	if rss > r.tr.RSSPeak {
		r.tr.RSSPeak, r.tr.PeakCase = rss, name
	}
	return d, nil
}

// failed writes the failure down and brings a broker back that is gone or stuck.
func (r *runner) failed(ctx context.Context, c *Case, name string, err error) error {
	rep := CaseReport{Target: r.target.Name, Case: name, What: err.Error(), Known: c.Known}
	stuck := r.late.Load()
	if stuck {
		rep.What = fmt.Sprintf("no end within %v: %s", caseTime, rep.What)
	}
	if r.exited() {
		rep.Log, rep.Place = lastLines(r.target.Log(), 25), r.target.Place(r.target.Log())
	} else {
		stuck = stuck || r.target.idle() != nil
	}
	gone := r.exited()
	switch {
	case c.Known != "":
		r.rep.Known = append(r.rep.Known, rep)
	default:
		r.rep.Failures = append(r.rep.Failures, rep)
		if stuck {
			r.rep.Hangs++
		} else if gone {
			r.rep.BrokerExits++
		}
	}
	if !gone && !stuck {
		return nil
	}
	if !gone {
		r.target.Kill()
	}
	if err := r.target.Start(ctx); err != nil {
		return fmt.Errorf("after %q: %w", name, err)
	}
	r.rss = r.target.rss
	return nil
}

// exited waits a moment for a broker that has just lost a connection to end.
func (r *runner) exited() bool {
	for range 50 {
		if !r.target.Alive() {
			return true
		}
		time.Sleep(2 * time.Millisecond)
	}
	return false
}

// lastLines returns the beginning of a crash report, or else the last lines.
func lastLines(log string, n int) string {
	for _, mark := range []string{"SIGSEGV", "SIGABRT", "SIGBUS", "fatal error", "panic:"} {
		if i := strings.Index(log, mark); i >= 0 {
			log = log[strings.LastIndexByte(log[:i], '\n')+1:]
			lines := strings.SplitAfterN(log, "\n", n+1)
			return strings.Join(lines[:min(len(lines), n)], "")
		}
	}
	lines := strings.SplitAfter(log, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// attempt runs a case with a VM of its own and looks at the broker afterwards.
func (r *runner) attempt(c *Case) (End, error) {
	mode := vhostusertest.QEMU11B
	if c.Mode != nil {
		mode = *c.Mode
	}
	vm, err := r.target.Connect(mode)
	if err != nil {
		return 0, err
	}
	end, err := finish(c, vm)
	vm.Quit()
	if err != nil {
		return 0, err
	}
	n, err := r.target.Leaked()
	if err != nil {
		return 0, err
	}
	if n > 0 {
		r.rep.LeakedFDs += n
		r.target.fds += n // the next case is not to blame
		return 0, fmt.Errorf("%w: %d", errLeak, n)
	}
	if end == Dropped {
		if err := r.nextVM(); err != nil {
			return 0, fmt.Errorf("the next VM: %w", err)
		}
	}
	return end, nil
}

// nextVM starts a VM and sends it good commands.
func (r *runner) nextVM() error {
	vm, err := r.target.Connect(vhostusertest.QEMU11B)
	if err != nil {
		return err
	}
	defer vm.Quit()
	return vm.Healthy()
}

// finish runs the case and reports how the VM stands after it.
func finish(c *Case, vm *VM) (End, error) {
	err := c.Do(vm)
	if errors.Is(err, errStream) {
		return Dropped, nil // by the guest itself
	}
	if err != nil && c.End != AnyEnd {
		return 0, err
	}
	switch c.End {
	case Dropped:
		if !vm.Gone() {
			return 0, errors.New("the connection lives on, want it dropped")
		}
		return Dropped, nil
	case Answers:
		return Answers, vm.Healthy()
	case Reloads:
		if err := vm.Reload(); err != nil {
			return 0, fmt.Errorf("reset: %w", err)
		}
		return Reloads, vm.Healthy()
	}
	if err == nil {
		err = vm.Reload()
	}
	if err == nil {
		err = vm.Healthy()
	}
	if err == nil {
		return Reloads, nil
	}
	return Dropped, nil // attempt looks whether the next VM is served
}

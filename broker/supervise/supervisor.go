package supervise

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Front says where a role's front-ends come from: one after the other from Listener, or
// the one there is.
type Front struct {
	Listener *vhostuser.Listener
	Conn     *vhostuser.Conn // Run ends when it does
}

// Config says what to supervise.
type Config struct {
	Fronts map[keep.Role]Front // Run closes them
	// Command makes the command that runs a worker. It gets the socket for keep.Adopt
	// as descriptor 3, before its own extra files, which are closed when it runs.
	Command func() *exec.Cmd
	// Watchdog is how long one command may wait; it may compute ten times as long. 0: for ever.
	Watchdog time.Duration
	// Quarantine is how many deaths within QuarantineTime turn 3D off for a VM; 0: none.
	Quarantine int
	// OnReady, if set, is called when the first worker serves.
	OnReady func()
	Log     *zap.Logger // nil for none
}

// QuarantineTime is the time in which deaths count together.
const QuarantineTime = time.Minute

// ErrWorker says that no worker could be started. The worker itself has said why.
var ErrWorker = errors.New("the worker did not start")

// StartError is ErrWorker with the worker's exit code.
type StartError struct{ Code int }

func (e *StartError) Error() string { return fmt.Sprintf("%v: exit code %d", ErrWorker, e.Code) }

// Is reports whether target is ErrWorker.
func (e *StartError) Is(target error) bool { return target == ErrWorker }

// Supervisor runs workers for the front-ends.
type Supervisor struct {
	cfg    Config
	log    *zap.Logger
	store  *store
	roles  map[keep.Role]*role
	names  []keep.Role
	page   *keep.Page
	pageFD *dmabuf.FD

	// Of the goroutine that starts workers.
	history keep.History
	deaths  []time.Time

	quarantined atomic.Bool

	mu      sync.Mutex
	current *worker       // guarded by mu: the one that is ready
	changed chan struct{} // guarded by mu: closed when current changes
	drop    func()        // guarded by mu: ends the GPU's front-end
}

type role struct {
	front  Front
	ledger *dmabuf.FD
}

// New prepares a supervisor. Run must follow.
func New(cfg Config) (_ *Supervisor, err error) {
	s := &Supervisor{cfg: cfg, log: cfg.Log, roles: map[keep.Role]*role{}, changed: make(chan struct{})}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	s.store = newStore(s.log)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.page, s.pageFD, err = keep.NewPage(); err != nil {
		return nil, err
	}
	for _, name := range []keep.Role{keep.GPU, keep.Input, keep.Touch, keep.Import} {
		front, ok := cfg.Fronts[name]
		if !ok {
			continue
		}
		r := &role{front: front}
		s.roles[name], s.names = r, append(s.names, name)
		if r.ledger, err = dmabuf.NewMemfd("ledger "+string(name), dmabuf.PageAlign(keep.RoleBytes)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Supervisor) close() {
	s.store.clear("")
	_ = s.page.Close()
	_ = s.pageFD.Close()
	for _, r := range s.roles {
		_ = r.ledger.Close()
	}
	for _, f := range s.cfg.Fronts {
		if f.Listener != nil {
			_ = f.Listener.Close()
		}
		if f.Conn != nil {
			_ = f.Conn.Close()
		}
	}
}

// Run serves front-ends until ctx ends, the only front-end there is leaves, or a worker
// ends in good order: all without error. StartError: the first worker did not start.
func (s *Supervisor) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer s.close()
	defer stop()
	var all sync.WaitGroup
	errs := make(chan error, len(s.names)+1)
	for _, name := range s.names {
		all.Go(func() {
			if err := s.serveRole(ctx, name); err != nil {
				errs <- fmt.Errorf("%s: %w", name, err)
			}
			if name == keep.GPU {
				stop()
			}
		})
	}
	all.Go(func() {
		defer stop()
		if err := s.keepWorking(ctx); err != nil {
			errs <- err
		}
	})
	all.Wait()
	close(errs)
	var list []error
	for err := range errs {
		list = append(list, err)
	}
	return errors.Join(list...)
}

// serveRole serves a role's front-ends.
func (s *Supervisor) serveRole(ctx context.Context, name keep.Role) error {
	f := s.roles[name].front
	if f.Conn != nil {
		s.serveFront(ctx, name, f.Conn)
		return nil
	}
	for {
		conn, err := f.Listener.Accept(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		s.serveFront(ctx, name, conn)
	}
}

// serveFront serves one front-end, and forgets all about it.
func (s *Supervisor) serveFront(ctx context.Context, name keep.Role, conn *vhostuser.Conn) {
	serving, drop := context.WithCancel(ctx)
	defer drop()
	if name == keep.GPU {
		s.setDrop(drop)
		defer s.setDrop(nil)
	}
	session := &session{sup: s, name: name, fe: conn, journal: newJournal()}
	if err := session.run(serving); err != nil {
		s.log.Error("front-end dropped", zap.String("device", string(name)), zap.Error(err))
	}
	if name == keep.GPU {
		s.forgive(ctx)
	}
}

func (s *Supervisor) setDrop(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop = f
}

// setWorker makes a worker the one that serves; nil: there is none.
func (s *Supervisor) setWorker(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = w
	close(s.changed)
	s.changed = make(chan struct{})
}

// PID returns the process that serves now; 0 if there is none. Any goroutine.
func (s *Supervisor) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return 0
	}
	return s.current.cmd.Process.Pid
}

// worker waits for a worker that serves; nil when ctx ended.
func (s *Supervisor) worker(ctx context.Context) *worker {
	for {
		s.mu.Lock()
		w, changed := s.current, s.changed
		s.mu.Unlock()
		if w != nil {
			select {
			case <-w.done: // its successor comes
			default:
				return w
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// keepWorking starts one worker after the other until one ends that was meant to.
func (s *Supervisor) keepWorking(ctx context.Context) error {
	for n := 0; ; n++ {
		w, err := s.start()
		if err != nil {
			return err
		}
		ready := false
		select {
		case <-w.ready:
			ready = true
			s.setWorker(w)
			if n == 0 && s.cfg.OnReady != nil {
				s.cfg.OnReady()
			}
		case <-w.done:
		case <-ctx.Done():
		}
		select {
		case <-w.done:
		case <-ctx.Done():
			w.stop()
		}
		s.setWorker(nil)
		switch {
		case ctx.Err() != nil || w.state.ExitCode() == 0 && !w.meant.Load():
			return nil
		case n == 0 && !ready:
			return &StartError{w.state.ExitCode()}
		case w.meant.Load():
			continue
		case !ready && w.state.ExitCode() == 1:
			// It said why it cannot start, such as a compositor that is away.
			s.wait(ctx, time.Second)
			continue
		}
		s.died(w)
		s.pause(ctx)
	}
}

// forgive starts a worker without quarantine when the VM that earned it has left.
func (s *Supervisor) forgive(ctx context.Context) {
	if !s.quarantined.Swap(false) {
		return
	}
	if w := s.worker(ctx); w != nil && w.quarantine {
		w.stop()
	}
}

// died writes down a worker's death and decides what follows.
func (s *Supervisor) died(w *worker) {
	doing := s.page.Doing()
	d := keep.Death{Cause: w.cause(), Context: doing.Context, Name: doing.Name, Command: doing.Command, Inside: doing.Inside}
	s.history.Last = &d
	if s.history.Restarts == nil {
		s.history.Restarts = map[string]uint64{}
	}
	s.history.Restarts[d.Cause]++
	fields := []zap.Field{zap.String("cause", d.Cause), zap.String("busy_with", doing.Culprit()), zap.Uint32("context", d.Context), zap.String("context_name", d.Name)}
	if d.Command != 0 {
		fields = append(fields, zap.Stringer("command", virtiogpu.Type(d.Command)))
	}
	s.log.Error("worker died; another takes over", fields...)

	now := time.Now()
	s.deaths = append(s.deaths, now)
	for len(s.deaths) > 0 && now.Sub(s.deaths[0]) > QuarantineTime {
		s.deaths = s.deaths[1:]
	}
	limit := s.cfg.Quarantine
	switch n := len(s.deaths); {
	case limit == 0 || n < limit:
	case !s.quarantined.Swap(true):
		s.deaths = nil
		s.log.Error("3D is off for this VM from now on", zap.Int("deaths", n), zap.Duration("within", QuarantineTime), zap.String("last", doing.Culprit()))
	default:
		s.deaths = nil
		s.log.Error("workers die without 3D, too: the VM's front-end is dropped", zap.Int("deaths", n))
		s.mu.Lock()
		drop := s.drop
		s.mu.Unlock()
		if drop != nil {
			drop()
		}
	}
}

// pause keeps workers that die at once from taking the whole machine.
func (s *Supervisor) pause(ctx context.Context) {
	n := len(s.deaths)
	if n < 2 {
		return
	}
	s.wait(ctx, min(time.Duration(n)*20*time.Millisecond, time.Second))
}

func (s *Supervisor) wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

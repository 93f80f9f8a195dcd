package input

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Config says which devices a server has.
type Config struct {
	// Socket is the path to listen on for the keyboard and pointer, TouchSocket
	// that for the touch screen; one of them may be empty.
	Socket      string
	TouchSocket string
	// SocketFD and TouchFD are listening sockets instead, made by somebody else; the
	// server takes them over.
	SocketFD, TouchFD *dmabuf.FD
	// Keep, if set, passes the front-ends on instead: those of the roles that it has.
	Keep *keep.Worker
	Log  *zap.Logger // nil for none
}

// takeFDs gives the listening sockets away.
func (c *Config) takeFDs() [2]*dmabuf.FD {
	fds := [2]*dmabuf.FD{Main: c.SocketFD, Touch: c.TouchFD}
	c.SocketFD, c.TouchFD = nil, nil
	return fds
}

// Server is the input devices of one guest. It is the [display.Input] of the
// sinks that show this guest.
type Server struct {
	log   *zap.Logger
	loop  *loop
	heads heads
	devs  [2]*served // by kind; nil where there is none
}

// served is a device with its socket.
type served struct {
	*device
	listener *vhostuser.Listener
	backend  *vhostuser.Backend
}

var _ display.Input = (*Server)(nil)

// NewServer listens. Call Run to serve and Close at the end, in any case. It
// changes the umask for a moment, as package unixsock does.
func NewServer(cfg Config) (_ *Server, err error) {
	s := &Server{log: cfg.Log}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	fds := cfg.takeFDs()
	defer func() {
		for _, fd := range fds {
			_ = fd.Close() // what nobody took
		}
	}()
	roles := [2]keep.Role{Main: keep.Input, Touch: keep.Touch}
	if cfg.Socket == "" && cfg.TouchSocket == "" && fds == [2]*dmabuf.FD{} && !cfg.Keep.Has(keep.Input) && !cfg.Keep.Has(keep.Touch) {
		return nil, &OpError{Op: "start", Err: fmt.Errorf("%w: no socket", ErrConfig)}
	}
	if s.loop, err = newLoop(); err != nil {
		return nil, err
	}
	for kind, path := range [...]string{Main: cfg.Socket, Touch: cfg.TouchSocket} {
		var kept *keep.Worker
		if cfg.Keep.Has(roles[kind]) {
			kept = cfg.Keep
		}
		if path == "" && fds[kind] == nil && kept == nil {
			continue
		}
		if s.devs[kind], err = s.listen(Kind(kind), path, fds[kind], kept, roles[kind]); err != nil {
			_ = s.Close()
			return nil, err
		}
	}
	return s, nil
}

// listen makes a device with its socket: kept's if there is one, else fd, else one at
// path.
func (s *Server) listen(kind Kind, path string, fd *dmabuf.FD, kept *keep.Worker, role keep.Role) (*served, error) {
	log := s.log.With(zap.Stringer("device", kind))
	d := &served{device: newDevice(kind, s.loop, log)}
	vc := vhostuser.Config{Device: d.device, Executor: s.loop, Log: log, Queues: queues}
	if kept != nil {
		kept.Config(role, &vc)
	}
	var err error
	d.backend, err = vhostuser.NewBackend(vc)
	if err != nil {
		return nil, &OpError{Op: "start", Device: kind.String(), Err: err}
	}
	if kept != nil {
		d.listener = kept.Listener(role)
	} else if fd != nil {
		d.listener, err = vhostuser.ListenFD(fd)
	} else {
		d.listener, err = vhostuser.Listen(path)
	}
	if err != nil {
		return nil, &OpError{Op: "listen", Device: kind.String(), Err: err}
	}
	return d, nil
}

// Run serves front-ends, one after the other for each device, until ctx ends,
// which is no error; keys that are down are released then.
func (s *Server) Run(ctx context.Context) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-ctx.Done():
			s.letGo()
		case <-serving.Done():
		}
		stop()
	}()
	var all sync.WaitGroup
	errs := make([]error, len(s.devs))
	for i, d := range s.devs {
		if d == nil {
			continue
		}
		s.log.Info("listening", zap.Stringer("device", d.kind), zap.String("socket", d.listener.Path()))
		all.Go(func() {
			errs[i] = d.backend.Run(serving, d.listener)
			if errs[i] != nil {
				stop()
			}
		})
	}
	all.Wait()
	stop()
	<-ended
	return errors.Join(errs...)
}

// letGoTime is what a guest gets to take the last releases.
const letGoTime = 200 * time.Millisecond

// letGo releases what is down and gives running guests a moment to hear of it.
func (s *Server) letGo() {
	s.ReleaseAll()
	for end := time.Now().Add(letGoTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
		waits := false
		for _, d := range s.devs {
			waits = waits || d != nil && d.src.waits()
		}
		if !waits {
			return
		}
	}
}

// Close ends the sockets and the loop. Run must have returned, or never have been
// called.
func (s *Server) Close() error {
	var errs []error
	for _, d := range s.devs {
		if d != nil {
			errs = append(errs, d.listener.Close())
		}
	}
	return errors.Join(append(errs, s.loop.Close())...)
}

// SetHeads says how large the heads' pictures are. The axes of pointer and touch
// screen cover them all, side by side in the order of their numbers, aligned at
// the top: how Linux desktops place outputs unless told otherwise. A guest that is
// told otherwise needs its pointer mapped there too. Any goroutine.
func (s *Server) SetHeads(sizes []Size) { s.heads.set(sizes) }

// LEDs returns the lights of the keyboard that the guest has on, by bit (LEDNum,
// LEDCaps, LEDScroll).
func (s *Server) LEDs() uint32 {
	if d := s.devs[Main]; d != nil {
		return d.leds.Load()
	}
	return 0
}

// Counters returns what became of a device's events. Any goroutine.
func (s *Server) Counters(kind Kind) Counters {
	if d := s.devs[kind]; d != nil {
		return d.src.stats()
	}
	return Counters{}
}

// ReleaseAll lifts every key, button and finger that the guest has down.
func (s *Server) ReleaseAll() {
	for _, d := range s.devs {
		if d != nil {
			d.src.releaseAll()
		}
	}
}

// Key implements [display.Input]. Codes that the device does not declare (see the
// config space) are dropped, as the guest's kernel would.
func (s *Server) Key(_ int, code uint16, pressed bool) {
	if d := s.devs[Main]; d != nil {
		d.src.key(code, pressed)
	}
}

// Pointer implements [display.Input].
func (s *Server) Pointer(head int, x, y uint16) {
	if d := s.devs[Main]; d != nil {
		d.src.move(s.heads.place(head, x, y))
	}
}

// Button implements [display.Input].
func (s *Server) Button(_ int, code uint16, pressed bool) {
	if d := s.devs[Main]; d != nil {
		d.src.key(code, pressed)
	}
}

// Scroll implements [display.Input].
func (s *Server) Scroll(_ int, vertical, horizontal int32) {
	if d := s.devs[Main]; d != nil {
		d.src.scroll(vertical, horizontal)
	}
}

// Touch implements [display.Input]. Without a touch screen fingers do nothing.
func (s *Server) Touch(head int, slot uint8, x, y uint16, down bool) {
	if d := s.devs[Touch]; d != nil {
		d.src.finger(slot, s.heads.place(head, x, y), down)
	}
}

// Frame implements [display.Input].
func (s *Server) Frame(int) {
	for _, d := range s.devs {
		if d != nil {
			d.src.frame()
		}
	}
}
